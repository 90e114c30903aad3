"""What a run says of itself: metrics.csv, a row every `log_every` steps, written while it runs."""

import csv
import os
import resource
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from stablevelocity.files import atomic_write
from stablevelocity.progress import log
from stablevelocity.training.batches import Batch
from stablevelocity.training.transfers import on_device


class Record:
    """Means of what was seen since the last row of metrics.csv, by regime (below and above xi).

    Adding to it waits for no device; its sums are read when a row or a checkpoint is written.
    """

    def __init__(self, xi: float):
        self.xi = xi
        self.last = torch.tensor(float("nan"))  # loss of the last step on this process
        self._sums: dict[str, Tensor] = {}  # of this process since the last row
        self._counts: dict[str, float] = {}

    def _put(self, name: str, values: Tensor) -> None:
        total = values.sum()
        self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._counts[name] = self._counts.get(name, 0.0) + values.numel()

    def add(self, batch: Batch, values: dict[str, Tensor]) -> None:
        low = batch.host_t < self.xi
        regimes = {
            regime: on_device(rows.nonzero().flatten(), batch.t.device)
            for regime, rows in (("low", low), ("high", ~low))
        }
        for name in ("loss", "grad_norm", "skipped"):
            if name in values:
                self._put(name, values[name])
        for name in ("velocity", "alignment"):
            if name in values:
                for regime, rows in regimes.items():
                    self._put(f"{name}_{regime}", values[name][rows])
        self._put("removed_variance", batch.removed_variance)
        self.last = values["loss"].mean()

    def totals(self, accelerator: Accelerator) -> dict[str, Tensor]:
        """(sum, count) by name over all processes: kept in checkpoints, so that a row may span an interruption."""
        names = sorted(self._sums)
        if not names:
            return {}
        sums = torch.stack([self._sums[name] for name in names])
        counts = torch.tensor([self._counts[name] for name in names], device=sums.device)
        summed = accelerator.reduce(torch.stack([sums, counts], dim=1), "sum")
        assert isinstance(summed, Tensor)
        return dict(zip(names, summed, strict=True))

    def load(self, totals: dict[str, Tensor], device: torch.device) -> None:
        """Continue from what `totals` gave; on one process only, the others start from nothing."""
        self._sums = {name: value[0].to(device) for name, value in totals.items()}
        self._counts = {name: float(value[1]) for name, value in totals.items()}

    def row(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over all processes, and of skipped steps their number; empties the record."""
        totals = self.totals(accelerator)
        row = {name: (total / count).item() for name, (total, count) in totals.items()}
        if "skipped" in totals:  # by all processes alike
            row["skipped"] = totals["skipped"][0].item() / accelerator.num_processes
        self._sums, self._counts = {}, {}
        return row


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without lines that are none, as a crashed file system leaves them."""
    with open(path, newline="", errors="replace") as file:
        lines = list(csv.DictReader(file))
    rows = [row for row in lines if _is_row(row)]
    if len(rows) < len(lines):
        log.warning(f"{path}: {len(lines) - len(rows)} lines are no rows of numbers and are left out")
    return rows


def _is_row(row: dict[str, str]) -> bool:
    try:
        [float(value) for value in row.values() if value != ""]
    except (TypeError, ValueError):  # bytes that are no number, or more or fewer than the header has
        return False
    return row["step"].isdecimal()


class MetricsStream:
    """metrics.csv as it grows: rows after the resumed step are dropped, each new row is flushed at once."""

    def __init__(self, path: Path, step: int):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, str]] = []
        if path.exists():
            rows = [row for row in read_rows(path) if int(row["step"]) <= step]
        self._fields = list(rows[0]) if rows else None
        with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
            if self._fields:
                writer = csv.DictWriter(file, self._fields)
                writer.writeheader()
                writer.writerows(rows)

    def write(self, row: dict[str, float]) -> None:
        with open(self.path, "a", newline="") as file:
            writer = csv.DictWriter(file, self._fields or list(row))
            if self._fields is None:
                self._fields = list(row)
                writer.writeheader()
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
            file.flush()
            os.fsync(file.fileno())


def memory_mb(device: torch.device) -> float:
    """MiB: peak allocated on an accelerator, or peak resident of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
