"""The table of `stablevelocity jobs`: how every run of a study stands, read from its files and the queue."""

import contextlib
import json
from pathlib import Path
from typing import Any

from stablevelocity.cluster.backends import Unreachable, is_over, scheduler
from stablevelocity.cluster.site import Site
from stablevelocity.cluster.tasks import eta, is_locked, last_row, newest_checkpoint, read_if_there
from stablevelocity.errors import UserError
from stablevelocity.study import Run, load_study

COLUMNS = ("run", "state", "job", "step", "of", "checkpoint", "restarts", "ETA")


def overview(results: Path) -> str:
    """One line per run of the study in `results`.

    Raises UserError when there is no study.
    """
    if not (results / "study.json").exists():
        raise UserError(f"{results}: no study.json in it; expected results/<study> of a study that was started")
    return table(load_study(results / "study.json").runs(), results / "runs")


def table(runs: dict[str, Run], folder: Path) -> str:
    """One line per run, each in its folder in `folder`."""
    folders = {name: folder / name for name in runs}
    records = {name: read_if_there(folder / "job" / "job.json") for name, folder in folders.items()}
    queue = _ask([record for record in records.values() if record and record["job"]])
    rows = [_row(run, folders[name], records[name], queue) for name, run in runs.items()]
    cells = [COLUMNS, *(tuple(str(row[name]) for name in COLUMNS) for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _ask(records: list[dict[str, Any]]) -> dict[str, str]:
    """State by job, each launcher asked once."""
    found: dict[str, str] = {}
    for launcher in {record["launcher"] for record in records}:
        jobs = sorted({record["job"] for record in records if record["launcher"] == launcher})
        with contextlib.suppress(UserError, Unreachable):
            found |= scheduler(launcher, Site()).states(jobs)
    return found


def _row(run: Run, folder: Path, record: dict[str, Any] | None, queue: dict[str, str]) -> dict[str, Any]:
    said = read_if_there(folder / "job" / "state.json") or {}
    checkpoints = _checkpoints(folder, record)
    row = last_row(checkpoints / "metrics.csv") if checkpoints else {}
    newest = newest_checkpoint(checkpoints) if checkpoints else None
    state = _state(run, folder, record, said, queue)
    return {
        "run": run.name,
        "state": state,
        "job": record["job"] if record else "-",
        "step": f"{row['step']:.0f}" if row else newest[0] if newest else 0,
        "of": run.training.steps,
        "checkpoint": f"{_age(newest[1])} ago" if newest else "none",
        "restarts": max(said.get("starts", 1) - 1, 0),
        "ETA": eta(row, run) if row and state == "RUNNING" else "-",
    }


def _checkpoints(folder: Path, record: dict[str, Any] | None) -> Path | None:
    """The folder of the run's present settings, or the one written last."""
    if record:
        return folder / "checkpoints" / record["hash"]
    found = sorted((folder / "checkpoints").glob("*/"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def _state(run: Run, folder: Path, record: dict[str, Any] | None, said: dict[str, Any], queue: dict[str, str]) -> str:
    if (folder / "weights" / f"step-{run.training.steps:08d}.safetensors").exists():
        return "finished"
    here = is_locked(folder / "job" / "lock")  # by a process that trains it, or for a moment by a head
    if record is None:
        if here:
            return "RUNNING"
        return "started" if (folder / "checkpoints").exists() else "not started"
    if record["job"] is None:
        return "submitting"
    state = queue.get(record["job"], "unknown")
    begun = said.get("name") == record["name"]
    if begun and said["state"] == "failed" and (said["final"] or is_over(state)):
        return f"failed: {json.dumps(said['message'])}"
    if state == "RUNNING" and not begun:
        return "waits its turn"  # the job trains another of its runs
    return "RUNNING" if here and is_over(state) else state


def _age(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60:02d}" if minutes >= 60 else f"{minutes} min"
