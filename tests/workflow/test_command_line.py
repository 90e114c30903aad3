"""What is said on the command line wins over the study file, key by key; what is said wrongly ends in one line."""

import json

import pytest
import yaml
from project import ROOT, Workflow, copy_project

from stablevelocity.study import parse_study, study_json

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize("file", ["digits.yaml", "smoke.yaml"])
def test_a_value_of_the_command_line_changes_that_value_only(tmp_path, file, server):
    """The default study is read without --configfile, any other with it."""
    copy_project(tmp_path)
    changes = ["training={lr: 1e-3, model: {heads: 2}}", "arms={cfm: {label: plain}}", "toy={seeds: [7]}", "name=mine"]
    given = [] if file == "digits.yaml" else ["--configfile", f"config/{file}"]
    target = "results/mine/data/images/heldout.index.csv"
    done = Workflow(tmp_path).snakemake("--config", *changes, *given, "--", target)
    assert done.returncode == 0, done.stderr

    expected = yaml.safe_load((ROOT / "config" / file).read_text())
    expected["name"] = "mine"
    expected["training"]["lr"] = 1e-3
    expected["training"]["model"]["heads"] = 2
    expected["arms"]["cfm"]["label"] = "plain"
    expected["toy"]["seeds"] = [7]
    found = json.loads((tmp_path / "results" / "mine" / "study.json").read_text())
    assert found == json.loads(study_json(parse_study(expected)))


def test_a_misspelt_key_of_the_command_line_is_refused_in_the_default_study(tmp_path):
    copy_project(tmp_path)
    done = Workflow(tmp_path).snakemake("-n", "--config", "training={lrr: 1e-3}", "--", "all")
    assert done.returncode != 0
    assert "training.lrr: no such key; did you mean 'lr'?" in done.stderr + done.stdout


@pytest.mark.parametrize(
    "words, content, expected",
    [
        ("--configfile config/smoke.yaml all", None, "there is no file 'all'; a target goes before it"),
        ("--profile slurm --configfile config/smoke.yaml all", None, "there is no file 'all'; a target goes before it"),
        ("-n all --configfile=study.yaml", None, "there is no file 'study.yaml'"),
        ("-n all --configfiles config/smoke.yaml study.yaml", "name: [", "study.yaml: line 1 is not YAML"),
        ("-n --config training={lr:1} all", None, "--config: 'all' is no key=value; a target goes before it"),
        ("-n all --configfile study.yaml", "name: a\nname: b\n", "study.yaml: line 2: the key 'name' stands twice"),
        ("-n all --configfile study.yaml", b"\xff\xfen\0", "study.yaml: is not text in UTF-8"),
    ],
)
def test_a_word_after_configfile_that_is_no_study_file_ends_in_one_line(tmp_path, words, content, expected):
    copy_project(tmp_path)
    if content is not None:
        (tmp_path / "study.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    done = Workflow(tmp_path).snakemake(*words.split())
    assert done.returncode != 0
    said = [line for line in (done.stdout + done.stderr).splitlines() if "profile" not in line]
    assert len(said) == 1, said
    assert said[0].startswith("error: ")
    assert expected in said[0]


def test_the_resources_of_a_rule_can_be_set_on_the_command_line(tmp_path):
    copy_project(tmp_path)
    done = Workflow(tmp_path).snakemake("-n", "--set-resources", "toy:mem_mb=7", "--", "toy")
    assert done.returncode == 0, done.stderr
    assert "mem_mb=7," in done.stdout + done.stderr
