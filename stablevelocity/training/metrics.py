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
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, list[Tensor]] = {}
        self.last = float("nan")

    def _put(self, name: str, values: Tensor) -> None:
        entry = torch.stack([values.sum(), torch.tensor(float(values.numel()), device=values.device)])
        self._sums.setdefault(name, []).append(entry)

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

    def row(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over all processes; empties the record."""
        names = sorted(self._sums)
        totals = torch.stack([torch.stack(self._sums[name]).sum(0) for name in names])
        totals = accelerator.reduce(totals, "sum")
        last = self.last
        self._clear()
        self.last = last
        means = (totals[:, 0] / totals[:, 1]).tolist()
        return dict(zip(names, means, strict=True))


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
