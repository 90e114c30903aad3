"""One line of overall progress while Snakemake runs jobs here, in place of what it says of each.

All that Snakemake says goes to its own log file, and what a job says to the job's log. On the terminal stay warnings,
errors with the log of the job that failed, and where the first figures are.
"""

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from stablevelocity.cluster.costs import estimated_seconds
from stablevelocity.study import Study

QUIET = "STABLEVELOCITY_QUIET"
"""Set for jobs that speak to their log alone."""
CHATTER = {"job_info", "job_started", "job_finished", "progress", "shellcmd"}
SENTENCES = ("Select jobs to execute...", "Touching output file")
FIRST_FIGURES = 3
INTERVAL = 10.0  # seconds between lines where no line can be overwritten


class Job(NamedTuple):
    rule: str
    label: str
    estimate: float
    output: str


class OverallProgress(logging.Filter):
    """Filter of the handler that writes to the terminal: drops what is said of each job, and says how far all are."""

    def __init__(self, jobs: dict[int, Job], cores: int, stream: Any, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self.jobs, self.cores, self.stream, self.clock = jobs, max(1, cores), stream, clock
        self.running: dict[int, float] = {}
        self.measured: dict[int, float] = {}
        self.began = self.said = clock()
        self.figures = 0

    def filter(self, record: logging.LogRecord) -> bool:
        event, now = str(getattr(record, "event", "")), self.clock()
        last = False
        if event == "job_info" and record.jobid in self.jobs:  # type: ignore[attr-defined]
            self.running[record.jobid] = now  # type: ignore[attr-defined]
        elif event == "job_finished" and record.job_id in self.running:  # type: ignore[attr-defined]
            number: int = record.job_id  # type: ignore[attr-defined]
            self.measured[number] = now - self.running.pop(number)
            last = len(self.measured) == len(self.jobs)
            if self.jobs[number].rule == "figure" and self.figures < FIRST_FIGURES:
                self.figures += 1
                self.clear()
                self.stream.write(f"made {self.jobs[number].output}\n")
        if record.levelno >= logging.WARNING or not (event in CHATTER or str(record.msg).startswith(SENTENCES)):
            self.clear()
            return True
        if self.stream.isatty() or last or now - self.said >= INTERVAL:
            self.said = now
            self.clear()
            self.stream.write(self.line(now) + ("" if self.stream.isatty() and not last else "\n"))
            self.stream.flush()
        return False

    def clear(self) -> None:
        """Remove the line, where it can be overwritten."""
        if self.stream.isatty():
            self.stream.write("\r\033[K")

    def line(self, now: float) -> str:
        done = sum(self.jobs[number].estimate for number in self.measured)
        total = sum(job.estimate for job in self.jobs.values())
        names = [self.jobs[number].label for number in self.running]
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        return (
            f"{done / total:4.0%}  {len(self.measured)} of {len(self.jobs)} jobs, {_clock(now - self.began)} gone, "
            f"about {_clock(self.left(now))} to go" + (f"; now {shown}" if shown else "")
        )

    def left(self, now: float) -> float:
        """Seconds to go: a job takes what those of its rule took so far, or its estimate at the speed of all so far."""
        by_rule: dict[str, list[float]] = {}
        for number, seconds in self.measured.items():
            by_rule.setdefault(self.jobs[number].rule, []).append(seconds)
        estimated = sum(self.jobs[number].estimate for number in self.measured)
        speed = sum(map(sum, by_rule.values())) / estimated if estimated else 1.0
        left = 0.0
        for number, job in self.jobs.items():
            if number not in self.measured:
                seconds = by_rule.get(job.rule)
                expected = sum(seconds) / len(seconds) if seconds else job.estimate * speed
                left += max(0.0, expected - (now - self.running.get(number, now)))
        return left / self.cores


def show_overall_progress(workflow: Any, study: Study) -> None:
    """Install it in a Snakemake that is about to run its jobs here; not where the user asks for more words, or none."""
    settings = workflow.output_settings
    handlers = [one for one in workflow.logger_manager.logger.handlers if one.name == "DefaultStreamHandler"]
    if not handlers or settings.verbose or settings.printshellcmds or settings.quiet:
        return
    jobs = {}
    for job in workflow.dag.needrun_jobs():
        rule = "train" if job.rule.name.startswith("train_") else job.rule.name
        label = " ".join([job.rule.name.replace("train_", "train "), *map(str, job.wildcards)])
        if job.rule.shellcmd:
            jobs[job.jobid] = Job(rule, label, estimated_seconds(rule, study), str(job.output[-1]))
    print(f"{len(jobs)} jobs; what each says: {', '.join(workflow.logger_manager.get_logfile())}", file=sys.stderr)
    handlers[0].addFilter(OverallProgress(jobs, workflow.cores, handlers[0].stream))
    os.environ[QUIET] = "1"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
