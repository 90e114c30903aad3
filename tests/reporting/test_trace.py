"""The way back from a number to what it was made from."""

import json
import shutil

import pandas as pd
import pytest

from stablevelocity.errors import UserError
from stablevelocity.files import sha256
from stablevelocity.reporting.trace import find, trace


def verbs(found) -> list[str]:
    return [job.verb for job in found.jobs]


def test_a_number_leads_to_the_files_of_its_own_arm_step_and_sampler(digits):
    found = find(digits / "tables/table2.csv", "stablevm, 1500, ode", "fid")
    assert found.row == "stablevm, 1500, ode"
    assert found.sources == [f"metrics/fidelity/stablevm-s{seed}/step-00001500/ode.csv" for seed in (0, 1)]
    assert (
        found.value == pd.read_csv(digits / "tables/table2.csv").query("arm == 'stablevm' & step == 1500")["fid"].item()
    )
    # The table's own job first, then two seeds of metrics, images and weights, and the latents that they share.
    assert verbs(found)[0] == "table"
    assert sorted(verbs(found)[1:]) == ["evaluate"] * 2 + ["latent-manifest"] + ["sample"] * 2 + ["train"] * 2
    assert {job.id.split("/")[1] for job in found.jobs if job.verb == "train"} == {"stablevm-s0", "stablevm-s1"}


def test_a_job_stands_before_those_that_made_its_inputs(digits):
    jobs = find(digits / "tables/table2.csv", "cfm, 500, ode", "is").jobs
    places = {file: place for place, job in enumerate(jobs) for file in job.outputs}
    for place, job in enumerate(jobs):
        assert all(places[file] > place for file in job.inputs if file in places)


def test_checksums_are_those_of_the_files(digits):
    for job in find(digits / "tables/table2.csv", "cfm, 500, ode", "is").jobs:
        for file, checksum in job.outputs.items():
            assert sha256(digits / file) == checksum


def test_a_difference_leads_to_all_arms_that_its_interval_pools(digits):
    own = find(digits / "tables/table2.csv", "stablevm, 1500, ode", "fid").sources
    pooled = find(digits / "tables/table2.csv", "stablevm, 1500, ode", "fid_from_baseline").sources
    assert set(own) < set(pooled)
    assert len(pooled) == 6 * 2
    assert all("step-00001500/ode" in name for name in pooled)
    compared = find(digits / "tables/differences.csv", "stablevm, 1500, sde, fid", "difference").sources
    assert {name.split("/")[2] for name in compared} == {"stablevm-s0", "stablevm-s1", "cfm-s0", "cfm-s1"}


def test_a_row_of_one_file_leads_to_that_file(digits):
    assert find(digits / "tables/toy_error.csv", "stablevm, 0.2", "error").sources == ["toy/error.csv"]


def test_a_row_is_found_by_its_label_and_the_last_step_is_taken(digits):
    assert find(digits / "tables/table2.csv", "REPA, t < 0.7", "fid").row == "repa-low, 1500, ode"


def test_the_command_is_the_verb_without_what_the_workflow_adds(digits):
    job = find(digits / "tables/table2.csv", "CFM", "fid").jobs[0]
    assert job.command == "stablevelocity table --output tables/table2.csv"


def test_text_names_each_kind_of_job_once_and_json_has_all(digits):
    found = find(digits / "tables/table2.csv", "CFM", "fid")
    text = "\n".join(found.lines())
    assert text.startswith(f"table2, row cfm, 1500, ode, fid = {found.value}")
    assert text.count("stablevelocity evaluate") == 1
    assert "(and 1 more like it)" in text
    content = json.loads(found.as_json())
    assert len([job for job in content["jobs"] if job["verb"] == "evaluate"]) == 2
    assert content["value"] == found.value


def test_what_cannot_be_traced_ends_in_one_line(digits, tmp_path):
    with pytest.raises(UserError, match=r"--row StableVN: no such row .* expected one of: cfm, 500, ode;"):
        find(digits / "tables/table2.csv", "StableVN", "fid")
    with pytest.raises(UserError, match=r"--column fed: no such column .* expected one of arm, label"):
        find(digits / "tables/table2.csv", "StableVM", "fed")
    with pytest.raises(UserError, match=r"expected results/<study>/tables/<table>.csv"):
        find(digits / "claims.json", "StableVM", "fid")
    (tmp_path / "tables").mkdir()
    shutil.copy(digits / "tables/table2.csv", tmp_path / "tables")
    with pytest.raises(UserError, match="no record of the job"):
        find(tmp_path / "tables/table2.csv", "StableVM", "fid")


def test_every_number_of_a_table_can_be_traced(digits):
    """What the page asks for: each measured cell has its sources, found without reading a file twice."""
    table = pd.read_csv(digits / "tables/table2.csv")
    for _, row in table.iterrows():
        for column in ("fid", "is", "precision", "recall", "fid_from_baseline"):
            assert trace(digits, "table2", row, column).sources
