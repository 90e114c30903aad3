"""What jobs say of themselves is what the report's timeline and durations show."""

import subprocess

import pytest

from stablevelocity.files import write_json
from stablevelocity.reporting.history import durations, timeline


def test_a_job_leaves_when_it_ran_and_what_it_used(tmp_path):
    assert timeline(tmp_path) is None
    assert durations(tmp_path) is None
    log = tmp_path / "logs" / "check-smoke.log"
    subprocess.run(["stablevelocity", "--log", log, "check", "config/smoke.yaml"], check=True)
    (job,) = timeline(tmp_path).to_dict("records")
    assert (job["name"], job["job"], job["start"]) == ("check", "check-smoke", 0.0)
    assert job["cpu"] > 0
    assert job["end"] > 0
    assert job["memory"] > 10  # MiB; no upper bound, as Linux hands the peak of who started it down to a process


def test_durations_are_sums_over_the_jobs_of_a_rule(tmp_path):
    times = {"train-cfm-s0": (100.0, 130.0, 25.0, 500.0), "train-cfm-s1": (130.0, 150.0, 19.0, 600.0)}
    for name, values in times.items():
        facts = dict(zip(("start", "end", "cpu", "memory"), values, strict=True))
        write_json(tmp_path / "logs" / f"{name}.json", facts)
    (row,) = durations(tmp_path).to_dict("records")
    assert row == {"name": "train", "jobs": 2, "seconds": 50.0, "cpu": 44.0, "memory": 600.0}
    assert timeline(tmp_path)["start"].tolist() == pytest.approx([0.0, 30.0])
