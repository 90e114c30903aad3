"""A run to train, and the files by which its submitter, its job and its user know how it stands.

Where they lie says `study.layout.RunFiles`.
"""

import contextlib
import csv
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from stablevelocity.errors import UserError
from stablevelocity.files import damaged_put_aside, read_json, write_json
from stablevelocity.locks import open_lock, try_lock
from stablevelocity.provenance import provenance_file
from stablevelocity.study import Run
from stablevelocity.study.layout import RunFiles
from stablevelocity.training.identity import run_hash
from stablevelocity.training.results import publish, result_files


@dataclass(frozen=True)
class Task:
    """A run and its inputs: all that `Trainer` takes."""

    run: Run
    latents: Path
    features: Path | None
    folder: Path
    begun: str = ""  # the hash it was begun under, if it was (`begun_run`)

    @cached_property
    def hash(self) -> str:
        return self.begun or run_hash(self.run, self.latents, self.features)

    def train(self, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Train here and now; True when finished. Every launcher comes to this line."""
        from stablevelocity.training.trainer import Trainer

        with damaged_put_aside(self.files.results):
            return Trainer(self.run, self.latents, self.features, self.folder, self.hash).train(should_stop)

    @property
    def files(self) -> RunFiles:
        return RunFiles(self.folder)

    @property
    def checkpoints(self) -> Path:
        return self.files.checkpoints(self.hash)

    def record(self) -> dict[str, Any] | None:
        """The job that has this very run; None when there is none, or only one for other settings or data."""
        record = read_if_there(self.files.record)
        return record if record and record["hash"] == self.hash else None

    def write_record(self, **facts: Any) -> None:
        write_json(self.files.record, {**facts, "hash": self.hash})

    def state(self) -> dict[str, Any]:
        """What a job says of itself and this run; empty when none has said anything."""
        return read_if_there(self.files.state) or {}

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold while deciding whether to submit; freed by the kernel when the holder dies."""
        path = self.files.lock
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_lock(path)
        try:
            try_lock(descriptor, wait=True)
            yield
        finally:
            os.close(descriptor)

    def complete(self) -> bool:
        """Whether the finished weights are there and whole: the only thing that counts as success."""
        results = result_files(self.checkpoints, self.run.steps)
        whole = all(_weights_of(path, self.hash, step) for step, path in results)
        return whole and provenance_file(self.checkpoints / "result" / "metrics.csv").exists()

    def publish(self) -> None:
        """Put the finished files where the workflow expects them."""
        publish(self.checkpoints, self.folder, self.run.steps)

    def last_step(self) -> int:
        """The step of the newest whole checkpoint, 0 when there is none."""
        return (newest_checkpoint(self.checkpoints) or (0, 0.0))[0]

    def progress(self) -> dict[str, float]:
        """The last row of metrics.csv: step, loss, images_per_s and so on."""
        return last_row(self.checkpoints / "metrics.csv")


def is_locked(path: Path) -> bool:
    """Whether some process holds `Task.lock` of a run now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(descriptor)
    return False


def batches(runs: list[Run], size: int) -> list[list[Run]]:
    """Runs in groups of at most `size`, in their order: each group is one job."""
    return [runs[start : start + size] for start in range(0, len(runs), size)]


def read_if_there(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`, or None when it is missing or being replaced on a slow file system."""
    with contextlib.suppress(OSError, UserError):
        return read_json(path, "hash")
    return None


def newest_checkpoint(folder: Path) -> tuple[int, float] | None:
    """(step, age in seconds) of the newest whole checkpoint in `folder`."""
    files = sorted(folder.glob("step-????????.safetensors"))
    with contextlib.suppress(OSError):  # a job may prune it in between
        if files:
            return int(files[-1].stem[-8:]), time.time() - files[-1].stat().st_mtime
    return None


def last_row(path: Path) -> dict[str, float]:
    """The last whole row of a CSV file of numbers; empty when there is none."""
    try:
        with open(path, newline="", errors="replace") as file:
            header, *lines = [line for line in file if line.endswith("\n")]
    except (OSError, ValueError):
        return {}
    for line in reversed(lines):
        row = next(csv.DictReader([header, line]), {})
        with contextlib.suppress(TypeError, ValueError):  # foreign bytes, after a crash
            return {name: float(value) for name, value in row.items() if value != ""}
    return {}


def eta(row: dict[str, float], run: Run) -> str:
    """Time to the end of the run at its present rate, h:mm; "?" when it is not known."""
    rate = row.get("images_per_s", 0.0)
    if not rate:
        return "?"
    minutes = int((run.training.steps - row["step"]) * run.training.batch / rate / 60)
    return f"{minutes // 60}:{minutes % 60:02d}"


def _weights_of(path: Path, identity: str, step: int) -> bool:
    """Whether `path` is a whole file of weights (safetensors refuses a truncated one) of this run and step."""
    try:
        with safe_open(path, "np") as file:
            info = json.loads((file.metadata() or {}).get("info", "{}"))
    except (OSError, SafetensorError):
        return False
    return info.get("hash") == identity and info.get("step") == step
