"""What `check` refuses, `snakemake all` refuses in the same line before its first job."""

import pytest
import yaml
from bad_inputs.studies import pictures
from bad_inputs.study_keys import SMOKE
from project import Workflow, copy_project

pytestmark = pytest.mark.workflow

FOLDER = {"dataset": "folder", "path": "data", "size": 16}


@pytest.mark.parametrize(
    "sections, expected",
    [
        ({"encoder": {"grid": 16}}, "encoder.grid: 16, but digits-vit has 4 tokens a side at images.size 16"),
        ({"images": FOLDER}, "images.path: "),
        ({"evaluation": {"reference": "gone.npz"}}, "evaluation.reference: there is no 'gone.npz'"),
    ],
    ids=["keys that contradict each other", "a data set without val", "a file that is not there"],
)
def test_a_study_that_would_fail_late_starts_no_job(tmp_path, sections, expected):
    copy_project(tmp_path)
    pictures(tmp_path / "data", {"train": {"a": 20, "b": 20}})
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(SMOKE | sections))
    workflow = Workflow(tmp_path)
    lines = []
    for command in (
        ["stablevelocity", "check", "study.yaml"],
        ["snakemake", "--configfile", "study.yaml", "--", "all"],
    ):
        done = workflow.run(*command)
        assert done.returncode != 0
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error: ")]
        assert len(said) == 1, done.stderr
        assert expected in said[0]
        lines.append(said[0][said[0].index(expected) :])
    assert lines[0] == lines[1]
    assert not [*tmp_path.glob("results/*/data"), *tmp_path.glob("results/*/logs/*")]
