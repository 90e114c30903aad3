"""The line of overall progress: what it keeps from the terminal, what it never does, and how it estimates."""

import io
import logging

import pytest

from stablevelocity.cli.overall_progress import Job, OverallProgress
from stablevelocity.cluster.costs import estimated_seconds
from stablevelocity.study.load import load_study

JOBS = {
    1: Job("train", "train cfm-s0", 20.0, "weights"),
    2: Job("train", "train cfm-s1", 20.0, "weights"),
    3: Job("figure", "figure figure1", 1.0, "figure1.png"),
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def progress(clock):
    return OverallProgress(JOBS, cores=2, stream=io.StringIO(), clock=clock)


def record(level=logging.INFO, message="said", **facts):
    made = logging.LogRecord("snakemake", level, "", 0, message, (), None)
    made.__dict__.update(facts)
    return made


def run(progress, clock, number, seconds):
    assert not progress.filter(record(event="job_info", jobid=number))
    clock.now += seconds
    assert not progress.filter(record(event="job_finished", job_id=number))


def test_errors_and_warnings_pass_and_what_is_said_of_each_job_does_not(progress):
    assert progress.filter(record(logging.ERROR, event="job_error"))
    assert progress.filter(record(logging.WARNING, "a warning"))
    assert progress.filter(record(message="Building DAG of jobs..."))
    for event in ("job_started", "progress", "shellcmd"):
        assert not progress.filter(record(event=event))
    assert not progress.filter(record(message="Select jobs to execute..."))


def test_jobs_of_one_rule_are_expected_to_take_as_long(progress, clock):
    run(progress, clock, 1, 10.0)
    # 10 s for the other run; the figure's estimate, 1 s, at the speed of all so far: half of the estimates. On 2 cores.
    assert progress.left(clock.now) == pytest.approx((10.0 + 0.5) / 2)
    progress.filter(record(event="job_info", jobid=2))
    clock.now += 4
    assert progress.left(clock.now) == pytest.approx((6.0 + 0.5) / 2)
    clock.now += 100  # longer than expected: nothing is left of it, not less
    assert progress.left(clock.now) == pytest.approx(0.5 / 2)


def test_the_line_says_the_share_of_the_work_and_the_first_figures(progress, clock):
    run(progress, clock, 1, 65.0)
    assert " 49%  1 of 3 jobs, 1:05 gone, about 0:34 to go" in progress.stream.getvalue()
    run(progress, clock, 3, 1.0)
    assert "made figure1.png\n" in progress.stream.getvalue()
    run(progress, clock, 2, 1.0)
    assert "100%  3 of 3 jobs, 1:07 gone, about 0:00 to go\n" in progress.stream.getvalue()


def test_the_estimate_follows_the_settings():
    study = load_study("config/digits.yaml")
    longer = study.model_copy(update={"training": study.training.model_copy(update={"steps": 6500})})
    assert estimated_seconds("train", longer) > 9 * estimated_seconds("train", study)
    assert estimated_seconds("table", longer) == estimated_seconds("table", study)
