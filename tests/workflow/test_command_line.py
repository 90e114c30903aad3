"""What is said on the command line wins over the study file, key by key."""

import json

import pytest
import yaml
from project import ROOT, Workflow, copy_project

from stablevelocity.study import parse_study, study_json

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize("file", ["digits.yaml", "smoke.yaml"])
def test_a_value_of_the_command_line_changes_that_value_only(tmp_path, file):
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
