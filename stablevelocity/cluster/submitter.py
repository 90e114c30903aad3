"""Submit a job for training runs, or attach to the one that has them, wait, and decide by the files.

A submitter holds nothing that it could lose: which job has a run stands in the run's record, written before and after
the submission under a lock, so that one that starts later, or at the same time, finds the job and waits for it too.
"""

import shutil
import signal
import sys
import time
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from stablevelocity.cluster.backends import Backend, Unreachable, is_over
from stablevelocity.cluster.job import TrainingJob
from stablevelocity.cluster.site import Site
from stablevelocity.cluster.tasks import Task, eta
from stablevelocity.errors import UserError
from stablevelocity.progress import log

STALLS = 3  # jobs in a row that may die without a reason of their own and without a new checkpoint
LOG_EVERY = 60.0  # seconds between lines about a run whose state does not change


class Submitter:
    """Waits until some job has finished each of `tasks`."""

    def __init__(self, tasks: list[Task], launcher: str, backend: Backend, site: Site):
        self.tasks, self.launcher, self.backend, self.site = tasks, launcher, backend, site
        self.watched: dict[str, str] = {}  # by run: the job seen at work on it; only its death counts as one
        self.over: set[str] = set()  # jobs that were over at the last look
        self.failed: dict[str, UserError] = {}  # runs that no other job can finish
        self.logged: dict[str, tuple[str, float]] = {}
        self.interrupted = False

    def wait(self) -> None:
        """Return when all runs are finished and published. Raises UserError for those that cannot be."""
        previous = signal.signal(signal.SIGINT, self._interrupt)
        try:
            while waiting := [task for task in self.tasks if task.run.name not in self.failed and not task.complete()]:
                try:
                    self.look(waiting)
                except Unreachable as error:
                    self._log("scheduler", f"no answer from the scheduler, waiting ({error})")
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
        """Look once at every run that is not complete, and submit together those that no job has."""
        without_job, over = [], set(self.over)
        records = {task.run.name: self._record(task) for task in waiting}
        states = self._states([record for record in records.values() if record])
        for task in waiting:
            record = records[task.run.name]
            if record and not is_over(states[record["job"]]):
                self.watched[task.run.name] = record["name"]
                self.over.discard(record["name"])
                self._show_state(task, record, states[record["job"]])
            # Files may come a little later than the news that the job is over: believe it at the second look.
            elif record and record["name"] == self.watched.get(task.run.name) and record["name"] not in over:
                self.over.add(record["name"])
            else:
                without_job.append(task)
        if without_job:
            self._submit(without_job)

    def _record(self, task: Task) -> dict[str, Any] | None:
        """The record of the job that has a run, with the job's id; None when there is none."""
        record = task.record()
        if record and record["job"] is None:  # its submitter died between the submission and noting the id
            record["job"] = self.backend.find(record["name"])
            if record["job"]:
                task.write_record(**record)
        return record if record and record["job"] else None

    def _states(self, records: list[dict[str, Any]]) -> dict[str, str]:
        jobs = sorted({record["job"] for record in records})
        return self.backend.states(jobs) if jobs else {}

    def _submit(self, tasks: list[Task]) -> None:
        with ExitStack() as stack:
            for task in sorted(tasks, key=lambda task: task.run.name):
                stack.enter_context(task.lock())
            stalls: dict[str, int] = {}
            # Another submitter may have been faster than the lock.
            for task in [task for task in tasks if not task.complete() and not self._attached(task)]:
                try:
                    stalls[task.run.name] = self._stalls(task)
                except UserError as error:  # the other runs of its job go on without it
                    self.failed[task.run.name] = error
            missing = [task for task in tasks if task.run.name in stalls]
            if not missing:
                return
            name = f"sv-{missing[0].run.name}-{uuid.uuid4().hex[:8]}"
            facts = {task.run.name: self._facts(task, name, stalls[task.run.name]) for task in missing}
            for task in missing:
                task.write_record(job=None, **facts[task.run.name])
            logs = missing[0].files.logs
            try:
                job = self.backend.submit(TrainingJob(name, missing), name, logs)
            except (UserError, OSError):
                for task in missing:
                    task.files.record.unlink(missing_ok=True)
                raise
            for task in missing:
                task.write_record(job=job, **facts[task.run.name])
                self.watched[task.run.name] = name
                log.info(f"train {task.run.name}: submitted as job {job}, logs in {logs}")

    def _attached(self, task: Task) -> bool:
        """Whether a job has the run already, which is then watched."""
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
            "from_step": task.last_step(),
            "stalls": stalls,
        }

    def _stalls(self, task: Task) -> int:
        """How many jobs in a row have died on this run without progress. Raises UserError when no other may try.

        What the training says itself (a loss that is not finite, a full disk) ends the run. A process that was killed,
        a node that died, an error between processes: another job goes on from the last checkpoint.
        """
        record, said = task.record(), task.state()
        if record is None or record["name"] != self.watched.get(task.run.name):
            return 0  # the user has started again: a new chance
        job, logs = record["job"], task.files.logs
        state = self._states([record])[job]
        failed = said.get("state") == "failed" and said.get("name") == record["name"]
        if failed and said["final"]:
            raise UserError(f"{task.run.name}: {said['message']} (job {job}, logs in {logs})")
        if state == "CANCELLED":
            raise UserError(f"{task.run.name}: job {job} was cancelled; start again to go on from its last checkpoint")
        if state == "OUT_OF_MEMORY":
            given = self.site.training.mem_gb
            raise UserError(f"{task.run.name}: job {job} needs more memory than training.mem_gb: {given:g}")
        started = {other.run.name for other in self.tasks if _has_started(other, record["name"])}
        if started and task.run.name not in started:
            return record["stalls"]  # its turn had not come: the job died of another run
        step = task.last_step()
        progress = step > record["from_step"] or state == "PREEMPTED"  # the cluster's doing, no fault of the run
        stalls = 0 if progress else record["stalls"] + 1
        reason = f": {said['message']}" if failed else ""
        if stalls >= STALLS:
            died = f"{stalls} jobs in a row died at step {step}, the last ({job}) is {state}{reason}"
            raise UserError(f"{task.run.name}: {died}; logs in {logs}")
        log.info(f"train {task.run.name}: job {job} is {state}{reason}; another goes on from step {step}")
        return stalls

    def _show_state(self, task: Task, record: dict[str, Any], state: str) -> None:
        row = task.progress()
        line = f"job {record['job']} {state}"
        if state == "RUNNING" and not _has_started(task, record["name"]):
            line += ", not begun"
        elif row and state == "RUNNING":
            line += f", step {row['step']:.0f}/{task.run.training.steps}, loss {row['loss']:.4g}"
            line += f", {row['images_per_s']:.3g} images/s, ETA {eta(row, task.run)}"
        self._overwrite(f"train {task.run.name}: {line}")
        self._log(f"train {task.run.name}", line, line.partition("step")[0])

    def _log(self, subject: str, line: str, key: str = "") -> None:
        """Log a line when its key changes, else once a minute."""
        key, now = key or line, time.monotonic()
        before, at = self.logged.get(subject, ("", 0.0))
        if key != before or now - at >= LOG_EVERY:
            self.logged[subject] = key, now
            self._overwrite("")
            log.info(f"{subject}: {line}")

    def _overwrite(self, line: str) -> None:
        """Write a line to a terminal that the next one overwrites."""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}")
            sys.stderr.flush()

    def _interrupt(self, number: int, frame: Any) -> None:
        jobs = []
        for task in self.tasks:
            record = task.record()
            if record and record["job"] and not task.complete():
                jobs.append(record["job"])
                stop = self.backend.cancel_command(record["job"])
                log.info(f"train {task.run.name}: job {record['job']} goes on; to stop it: {stop}")
        if self.interrupted or not jobs:
            sys.exit(130)
        self.interrupted = True
        log.info("Ctrl-C again leaves; the next start attaches to what still runs")


def _has_started(task: Task, name: str) -> bool:
    """Whether the job of this name has started with the run."""
    return task.state().get("name") == name
