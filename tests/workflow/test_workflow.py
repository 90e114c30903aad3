"""The workflow for real: the smoke study once, then what each change makes run again."""

import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
from project import ROOT, Workflow

from stablevelocity.files import sha256
from stablevelocity.records import read_records

# They share one finished study; pytest-xdist gives a file to one process (--dist loadfile).
pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def workflow(smoke, tmp_path_factory) -> Workflow:
    """One finished study that these tests share."""
    return Workflow(Path(shutil.copytree(smoke, tmp_path_factory.mktemp("shared") / "project", symlinks=True)))


def test_the_study_ends_with_a_report_and_nothing_is_left_to_do(workflow):
    assert (workflow.results / "report.html").stat().st_size > 10_000
    assert json.loads((workflow.results / "claims.json").read_text())
    assert workflow.planned() == set()


def test_the_reports_tests_use_columns_that_a_study_has(workflow, tmp_path):
    """The synthetic results of tests/reporting hold no column that the stages do not write."""
    spec = importlib.util.spec_from_file_location("synthetic", ROOT / "tests/reporting/synthetic.py")
    synthetic = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(synthetic)
    made = synthetic.make(synthetic.digits(), tmp_path)
    for folder in ("variance", "exact_flow", "toy", "runs", "metrics/fidelity", "metrics/sweep"):
        files = list((made / folder).rglob("*.csv"))
        assert files
        for file in files:
            # Of the same kind: the file itself, or that of another run.
            kind = file.stem if folder in ("variance", "exact_flow", "toy", "runs") else "*"
            real = [set(pd.read_csv(one, nrows=0)) for one in (workflow.results / folder).rglob(f"{kind}.csv")]
            assert set(pd.read_csv(file, nrows=0)) <= set().union(*real), file.relative_to(made)
    real = [set(pd.read_csv(results / "metrics/floor.csv", nrows=0)) for results in (made, workflow.results)]
    assert real[0] <= real[1]


REPORT = {"table", "tables", "paper_tables", "figure", "figures", "claims", "report"}
MEASURED = {"sample_shard", "sample_manifest", "fidelity", "sweep"}
TRAINED = {"train_cfm-s0", "train_stablevm-va-s0", "alignment_curve", "gradient_variance"} | MEASURED

# What stands between a file and the report; every rule of these sets must run again when the file and its record are
# gone; with its record, by which the same bytes will come out, only its maker. Files with only the report in common go
# together.
AFTER = {
    ("data/latents/train-00001.safetensors",): {
        "latent_shard",
        "latent_manifest",
        "latent_spectrum",
        "data_variance",
        "variance_curves",
    }
    | TRAINED,
    ("data/encoder/model.safetensors",): {
        "encoder",
        "feature_shard",
        "feature_manifest",
        "train_stablevm-va-s0",
        "alignment_curve",
    }
    | (MEASURED - {"sweep"}),
    ("runs/cfm-s0/weights/step-00000020.safetensors",): {"train_cfm-s0", "gradient_variance"} | MEASURED,
    ("metrics/judge.json",): {"judge", "reference", "floor", "fidelity", "sweep"},
    ("variance/gmm-10.csv", "metrics/floor.csv", "toy/error.csv", "exact_flow/samples.csv"): {
        "gmm_variance",
        "variance_curves",
        "floor",
        "toy",
        "exact_flow",
    },
}


MAKERS = {"latent_shard", "encoder", "train_cfm-s0", "judge", "gmm_variance", "floor", "toy", "exact_flow"}


@contextlib.contextmanager
def away(*paths: Path):
    """Without some files for a while."""
    for path in paths:
        path.rename(path.with_name(path.name + ".aside"))
    yield
    for path in paths:
        path.with_name(path.name + ".aside").rename(path)


@pytest.mark.parametrize("files", AFTER, ids=lambda files: files[0])
def test_without_a_file_and_its_record_exactly_the_stages_after_it_run_again(workflow, files):
    paths = [workflow.results / file for file in files]
    records = [record.path for record in read_records(workflow.results) if {*paths} & {*record.outputs}]
    with away(*paths, *records):
        planned = workflow.planned()
    assert planned - REPORT == AFTER[files]
    assert planned & REPORT  # and the report after them


def test_files_whose_records_are_there_are_made_again_alone(workflow):
    with away(*(workflow.results / file for files in AFTER for file in files)):
        assert workflow.planned() == MAKERS


def test_a_change_of_one_arms_learning_rate_retrains_that_arm_only(workflow):
    planned = workflow.planned("--config", "arms={cfm: {training: {lr: 1e-3}}}")
    assert {name for name in planned if name.startswith("train_")} == {"train_cfm-s0"}
    assert not planned & {"autoencoder", "latent_shard", "encoder", "judge", "gmm_variance", "toy"}


def test_an_edit_of_the_figures_remakes_figures_and_report_only(workflow):
    source = workflow.folder / "stablevelocity" / "reporting" / "figures.py"
    original = source.read_text()
    source.write_text(original + "\nEXTRA = 1\n")
    try:
        planned = workflow.planned()
    finally:
        source.write_text(original)
    assert "figure" in planned
    assert planned <= {"figure", "figures", "report"}


def test_one_figure_can_be_asked_for_by_its_file(workflow, server):
    figure = workflow.results / "figures" / "figure1.pdf"
    figure.unlink()
    done = workflow.snakemake("results/smoke/figures/figure1.pdf", "--configfile", "config/smoke.yaml")
    assert done.returncode == 0, done.stderr
    assert figure.exists()


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["training={lrr: 1}"], "training.lrr: no such key; did you mean 'lr'?"),
        (["images={dataset: folder, path: /no/such}"], "images.path: there is no '/no/such'"),
    ],
)
def test_a_wrong_study_ends_in_one_line_before_any_job(workflow, arguments, expected):
    if "folder" in arguments[0]:
        arguments = ["images={dataset: folder, path: /no/such, size: 16}"]
    done = workflow.snakemake("all", "--configfile", "config/smoke.yaml", "--config", *arguments)
    assert done.returncode != 0
    said = [line for line in (done.stdout + done.stderr).splitlines() if "error:" in line]
    assert len(said) == 1
    assert expected in said[0]
    assert "Traceback" not in done.stderr
    assert not re.search(r"^Finished jobid", done.stdout + done.stderr, re.MULTILINE)


def test_a_half_written_shard_is_never_taken_for_a_result(workflow, server):
    shard = workflow.results / "data" / "latents" / "train-00000.safetensors"
    original, stat = shard.read_bytes(), shard.stat()
    shard.write_bytes(original[: len(original) // 2])
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # nothing to see by its age
    (workflow.results / "variance" / "latents.csv").unlink()
    first = workflow.snakemake("all", "--configfile", "config/smoke.yaml")
    assert first.returncode != 0
    assert "differs from its checksum" in first.stdout + first.stderr
    assert "latent_shard" in workflow.planned()  # put aside, so the next run makes it again: the same bytes
    second = workflow.snakemake(str(shard.relative_to(workflow.folder)), "--configfile", "config/smoke.yaml")
    assert second.returncode == 0, second.stdout + second.stderr
    assert shard.read_bytes() == original


def test_the_commands_behind_a_number_make_the_same_files_by_hand(workflow, server, tmp_path):
    """`trace` names every job from a table down to the images; run in a copy without their files, they make these."""
    shutil.copytree(workflow.folder, tmp_path, dirs_exist_ok=True)
    copy = Workflow(tmp_path)
    table = "results/smoke/tables/table2.csv"
    told = copy.run("stablevelocity", "trace", table, "--row", "CFM", "--column", "fid", "--json")
    jobs = json.loads(told.stdout)["jobs"]
    verbs = {job["verb"] for job in jobs}
    assert {"table", "evaluate", "sample", "train", "latent-shard", "autoencoder", "image-shard"} <= verbs
    for job in jobs:
        for file in job["outputs"]:
            (copy.results / file).unlink()
    shutil.rmtree(copy.results / "runs/cfm-s0")
    for job in reversed(jobs):
        done = copy.run(*shlex.split(job["command"]))
        assert done.returncode == 0, job["command"] + done.stderr
        for file, checksum in job["outputs"].items():
            # The metrics of a training have its speed in them.
            assert file.endswith("metrics.csv") or sha256(copy.results / file) == checksum, file
