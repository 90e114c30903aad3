"""The table of `stablevelocity jobs`: how every run of a study stands, read from its files and the queue."""

import contextlib
import json
from pathlib import Path
from typing import Any

from stablevelocity.cluster.backends import Unreachable, backend, is_over
from stablevelocity.cluster.site import Site
from stablevelocity.cluster.tasks import eta, is_locked, last_row, newest_checkpoint, read_if_there
from stablevelocity.errors import UserError
from stablevelocity.study import Run, load_study
from stablevelocity.study.layout import Layout, RunFiles

COLUMNS = ("run", "state", "job", "step", "of", "checkpoint", "restarts", "ETA")


def overview(results: Path) -> str:
    """One line per run of the study in `results`.

    Raises UserError when there is no study.
    """
    layout = Layout(str(results))
    if not Path(layout.study).exists():
        raise UserError(f"{results}: no study.json in it; expected results/<study> of a study that was started")
    return table(load_study(layout.study).runs(), layout)


def table(runs: dict[str, Run], layout: Layout) -> str:
    """One line per run, its columns aligned."""
    records = {name: read_if_there(layout.run(name).record) for name in runs}
    queue = _states([record for record in records.values() if record and record["job"]])
    rows = [COLUMNS, *(_row(run, layout.run(name), records[name], queue) for name, run in runs.items())]
    widths = [max(len(row[k]) for row in rows) for k in range(len(COLUMNS))]
    cells = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return "\n".join("  ".join(row).rstrip() for row in cells)


def _states(records: list[dict[str, Any]]) -> dict[str, str]:
    """State by job, each backend asked once."""
    states: dict[str, str] = {}
    for launcher in {record["launcher"] for record in records}:
        jobs = sorted({record["job"] for record in records if record["launcher"] == launcher})
        with contextlib.suppress(UserError, Unreachable):
            states |= backend(launcher, Site()).states(jobs)
    return states


def _row(run: Run, files: RunFiles, record: dict[str, Any] | None, queue: dict[str, str]) -> tuple[str, ...]:
    """The cells of COLUMNS."""
    said = read_if_there(files.state) or {}
    checkpoints = _checkpoints(files, record)
    last = last_row(checkpoints / "metrics.csv") if checkpoints else {}
    newest = newest_checkpoint(checkpoints) if checkpoints else None
    state = _state(run, files, record, said, queue)
    return (
        run.name,
        state,
        record["job"] or "-" if record else "-",
        f"{last['step']:.0f}" if last else str(newest[0] if newest else 0),
        str(run.training.steps),
        f"{_age(newest[1])} ago" if newest else "none",
        str(max(said.get("starts", 1) - 1, 0)),
        eta(last, run) if last and state == "RUNNING" else "-",
    )


def _checkpoints(files: RunFiles, record: dict[str, Any] | None) -> Path | None:
    """The folder of the run's present settings, or the one written last."""
    if record:
        return files.checkpoints(record["hash"])
    folders = sorted(files.checkpoints("").glob("*/"), key=lambda path: path.stat().st_mtime)
    return folders[-1] if folders else None


def _state(
    run: Run, files: RunFiles, record: dict[str, Any] | None, said: dict[str, Any], queue: dict[str, str]
) -> str:
    if files.weights(run.training.steps).exists():
        return "finished"
    here = is_locked(files.lock)  # by a process that trains it, or for a moment by a submitter
    if record is None:
        if here:
            return "RUNNING"
        return "started" if files.checkpoints("").exists() else "not started"
    if record["job"] is None:
        return "submitting"
    state = queue.get(record["job"], "unknown")
    started = said.get("name") == record["name"]
    if started and said["state"] == "failed" and (said["final"] or is_over(state)):
        return f"failed: {json.dumps(said['message'])}"
    if state == "RUNNING" and not started:
        return "waits its turn"  # the job trains another of its runs
    return "RUNNING" if here and is_over(state) else state


def _age(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60:02d}" if minutes >= 60 else f"{minutes} min"
