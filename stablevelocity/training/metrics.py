"""What a run says of itself: metrics.csv, a row every `log_every` steps, written while it runs."""

import csv
import os
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from stablevelocity.files import atomic_write
from stablevelocity.training.batches import Batch


class Record:
    """Means of what was seen since the last row of metrics.csv, by regime (below and above xi)."""

    def __init__(self, xi: float):
        self.xi = xi
        self.last = float("nan")  # loss of the last step on this process
        self._totals: dict[str, Tensor] = {}  # (sum, count) of this process since the last row

    def _put(self, name: str, values: Tensor) -> None:
        entry = torch.stack([values.sum(), torch.tensor(float(values.numel()), device=values.device)])
        self._totals[name] = self._totals[name] + entry if name in self._totals else entry

    def add(self, batch: Batch, values: dict[str, Tensor]) -> None:
        low = batch.t < self.xi
        self._put("loss", values["loss"])
        self._put("grad_norm", values["grad_norm"])
        for name in ("velocity", "alignment"):
            if name in values:
                self._put(f"{name}_low", values[name][low])
                self._put(f"{name}_high", values[name][~low])
        self._put("removed_variance", batch.removed_variance)
        self.last = values["loss"].mean().item()

    def totals(self, accelerator: Accelerator) -> dict[str, Tensor]:
        """(sum, count) by name over all processes: kept in checkpoints, so that a row may span an interruption."""
        names = sorted(self._totals)
        if not names:
            return {}
        summed = accelerator.reduce(torch.stack([self._totals[name] for name in names]), "sum")
        assert isinstance(summed, Tensor)
        return dict(zip(names, summed, strict=True))

    def load(self, totals: dict[str, Tensor], device: torch.device) -> None:
        """Continue from what `totals` gave; on one process only, the others start from nothing."""
        self._totals = {name: value.to(device) for name, value in totals.items()}

    def row(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over all processes; empties the record."""
        means = {name: (total / count).item() for name, (total, count) in self.totals(accelerator).items()}
        self._totals = {}
        return means


class MetricsStream:
    """metrics.csv as it grows: rows after the resumed step are dropped, each new row is flushed at once."""

    def __init__(self, path: Path, step: int):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, str]] = []
        if path.exists():
            with open(path, newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["step"] and int(row["step"]) <= step]
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
            writer.writerow(
                {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
            )
            file.flush()
            os.fsync(file.fileno())
