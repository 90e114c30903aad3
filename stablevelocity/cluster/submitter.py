"""The head of a training run: submit a job or re-attach to the one that has the run, wait, judge by the files.

A head holds nothing that it could lose: which job has a run is in <run>/job/job.json, written before and after the
submission under a lock, so that a head that starts later, or at the same time, finds the job and waits for it too.
"""

import shutil
import signal
import sys
import time
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from stablevelocity.cluster.backends import GONE, Scheduler, Unreachable, is_over
from stablevelocity.cluster.job import TrainingJob
from stablevelocity.cluster.site import Site
from stablevelocity.cluster.tasks import Task, eta, read_if_there
from stablevelocity.errors import UserError
from stablevelocity.progress import log

STALLS = 3  # jobs in a row that may die without a word and without a new checkpoint
SAY_EVERY = 60.0  # seconds between lines about a run whose state does not change


class Head:
    """Waits for runs, each in the hands of some job."""

    def __init__(self, tasks: list[Task], launcher: str, scheduler: Scheduler, site: Site):
        self.tasks, self.launcher, self.scheduler, self.site = tasks, launcher, scheduler, site
        self.watched: dict[str, str] = {}  # job that this head saw at work on a run: only its death counts as one
        self.over: set[str] = set()  # jobs that were over at the last look
        self.failed: dict[str, UserError] = {}  # runs that no other job can mend
        self.said: dict[str, tuple[str, float]] = {}
        self.interrupted = False

    def wait(self) -> None:
        previous = signal.signal(signal.SIGINT, self._interrupt)
        try:
            while waiting := [task for task in self.tasks if task.run.name not in self.failed and not task.complete()]:
                try:
                    self.look(waiting)
                except Unreachable as error:
                    self._say("scheduler", f"no answer from the scheduler, waiting ({error})")
                time.sleep(self.site.poll_seconds)
        finally:
            signal.signal(signal.SIGINT, previous)
        for task in self.tasks:
            if task.run.name not in self.failed:
                task.publish()
                log.info(f"train {task.run.name}: finished, {task.run.training.steps} steps")
        if self.failed:
            raise UserError("; ".join(map(str, self.failed.values())))

    def look(self, waiting: list[Task]) -> None:
        """One look at every run that is not complete; those that no job has are submitted together."""
        unattended, over = [], set(self.over)
        records = {task.run.name: self._record(task) for task in waiting}
        states = self._states([record for record in records.values() if record])
        for task in waiting:
            record = records[task.run.name]
            state = states[record["job"]] if record else GONE
            if record is None or is_over(state):
                # Files may come a little later than the news that the job is over: believe it at the second look.
                watched = record is not None and record["name"] == self.watched.get(task.run.name)
                if record and watched and record["name"] not in over:
                    self.over.add(record["name"])
                else:
                    unattended.append(task)
            else:
                self.watched[task.run.name] = record["name"]
                self.over.discard(record["name"])
                self._tell(task, record, state)
        if unattended:
            self._submit(unattended)

    def _record(self, task: Task) -> dict[str, Any] | None:
        """The record of the job that has a run, with the job's id; None when there is none."""
        record = task.record()
        if record and record["job"] is None:  # its head died between asking for the job and noting its id
            record["job"] = self.scheduler.find(record["name"])
            if record["job"]:
                task.write_record(**record)
        return record if record and record["job"] else None

    def _states(self, records: list[dict[str, Any]]) -> dict[str, str]:
        jobs = sorted({record["job"] for record in records})
        return self.scheduler.states(jobs) if jobs else {}

    def _submit(self, tasks: list[Task]) -> None:
        with ExitStack() as stack:
            for task in sorted(tasks, key=lambda task: task.run.name):
                stack.enter_context(task.lock())
            # Another head may have been faster than the lock.
            missing = [task for task in tasks if not task.complete() and not self._attended(task)]
            if not missing:
                return
            stalls: dict[str, int] = {}
            for task in missing:
                try:
                    stalls[task.run.name] = self._judge(task)
                except UserError as error:  # the other runs of its job go on without it
                    self.failed[task.run.name] = error
            missing = [task for task in missing if task.run.name in stalls]
            if not missing:
                return
            name = f"sv-{missing[0].run.name}-{uuid.uuid4().hex[:8]}"
            facts = {task.run.name: self._facts(task, name, stalls[task.run.name]) for task in missing}
            for task in missing:
                task.write_record(job=None, **facts[task.run.name])
            try:
                job = self.scheduler.submit(TrainingJob(name, missing), name, missing[0].logs)
            except (UserError, OSError):
                for task in missing:
                    task.record_file.unlink(missing_ok=True)
                raise
            for task in missing:
                task.write_record(job=job, **facts[task.run.name])
                self.watched[task.run.name] = name
                log.info(f"train {task.run.name}: submitted as job {job}, logs in {missing[0].logs}")

    def _attended(self, task: Task) -> bool:
        record = self._record(task)
        if record is None or is_over(state := self._states([record])[record["job"]]):
            return False
        self.watched[task.run.name] = record["name"]
        log.info(f"train {task.run.name}: attached to job {record['job']} ({state})")
        return True

    def _facts(self, task: Task, name: str, stalls: int) -> dict[str, Any]:
        return {
            "name": name,
            "launcher": self.launcher,
            "run": task.run.name,
            "submitted": datetime.now(UTC).isoformat(timespec="seconds"),
            "from_step": (task.last_checkpoint() or (0, 0))[0],
            "stalls": stalls,
        }

    def _judge(self, task: Task) -> int:
        """How many jobs in a row have died on this run without progress, when another may try; else UserError.

        What the training says itself (a loss that is not finite, a full disk) ends the run. A process that was killed,
        a node that died, an error between processes: another job goes on from the last checkpoint.
        """
        record, state = task.record(), read_if_there(task.state_file) or {}
        if record is None or record["name"] != self.watched.get(task.run.name):
            return 0  # the user has started again: a new chance
        job, logs = record["job"], task.logs
        word = self._states([record])[job]
        failed = state.get("state") == "failed" and state.get("name") == record["name"]
        if failed and state["final"]:
            raise UserError(f"{task.run.name}: {state['message']} (job {job}, logs in {logs})")
        if word == "CANCELLED":
            raise UserError(f"{task.run.name}: job {job} was cancelled; start again to go on from its last checkpoint")
        if word == "OUT_OF_MEMORY":
            given = self.site.training.mem_gb
            raise UserError(f"{task.run.name}: job {job} needs more memory than training.mem_gb: {given:g}")
        begun = {other.run.name for other in self.tasks if _said_by(other, record["name"])}
        if begun and task.run.name not in begun:
            return record["stalls"]  # its turn had not come: the job died of another run
        step = (task.last_checkpoint() or (0, 0))[0]
        stalls = 0 if step > record["from_step"] else record["stalls"] + 1
        said = f": {state['message']}" if failed else ""
        if stalls >= STALLS:
            died = f"{stalls} jobs in a row died at step {step}, the last ({job}) is {word}{said}"
            raise UserError(f"{task.run.name}: {died}; logs in {logs}")
        log.info(f"train {task.run.name}: job {job} is {word}{said}; another goes on from step {step}")
        return stalls

    # --- what a person reads -----------------------------------------------------------------------------------

    def _tell(self, task: Task, record: dict[str, Any], state: str) -> None:
        row = task.progress()
        line = f"job {record['job']} {state}"
        if state == "RUNNING" and not _said_by(task, record["name"]):
            line += ", not begun"
        elif row and state == "RUNNING":
            line += f", step {row['step']:.0f}/{task.run.training.steps}, loss {row['loss']:.4g}"
            line += f", {row['images_per_s']:.3g} images/s, ETA {eta(row, task.run)}"
        self._show(f"train {task.run.name}: {line}")
        self._say(f"train {task.run.name}", line, line.partition("step")[0])

    def _say(self, what: str, line: str, key: str = "") -> None:
        """Log a line when its key changes, else once a minute."""
        key, now = key or line, time.monotonic()
        before, at = self.said.get(what, ("", 0.0))
        if key != before or now - at >= SAY_EVERY:
            self.said[what] = key, now
            self._show("")
            log.info(f"{what}: {line}")

    def _show(self, line: str) -> None:
        """On a terminal, a line that the next one overwrites."""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}")
            sys.stderr.flush()

    def _interrupt(self, number: int, frame: Any) -> None:
        jobs = []
        for task in self.tasks:
            record = task.record()
            if record and record["job"] and not task.complete():
                jobs.append(record["job"])
                stop = self.scheduler.cancel_command(record["job"])
                log.info(f"train {task.run.name}: job {record['job']} goes on; to stop it: {stop}")
        if self.interrupted or not jobs:
            sys.exit(130)
        self.interrupted = True
        log.info("Ctrl-C again leaves; the next start attaches to what still runs")


def _said_by(task: Task, name: str) -> bool:
    """Whether the job of this name has begun with the run."""
    return (read_if_there(task.state_file) or {}).get("name") == name
