"""Rows of results: a part appends each as soon as it is known, so a part that is killed loses only what was not done.

A row is a dictionary with `part`, `name` and `kind`:
    measured  a number with its unit; floor (the least time, or the largest rate, that the device allows; same unit) and
              ratio = measured / floor where that makes sense
    check     a relative error, its bound, and whether it passed; NaN never passes
    error     what failed, with the last line of its traceback
"""

import contextlib
import gc
import json
import math
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

FILE = "rows.jsonl"

Row = dict[str, Any]


def read_rows(folder: Path) -> list[Row]:
    """All rows so far; a last line that was cut off by a kill is left out."""
    file = folder / FILE
    rows = []
    for line in file.read_text().splitlines() if file.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def append(folder: Path, row: Row) -> None:
    with open(folder / FILE, "a") as file:
        file.write(json.dumps(row) + "\n")
    print(describe(row), flush=True)


def describe(row: Row) -> str:
    """One line of text."""
    parts = [f"{row['part']:11} {row['name']:58}"]
    if row["kind"] == "check":
        verdict = "pass" if row["passed"] else "FAIL"
        parts.append(f"{verdict}  error {row['measured']:.3g}, bound {row['bound']:.3g}")
    elif row["kind"] == "error":
        parts.append("ERROR")
    else:
        parts.append(f"{row['measured']:.5g} {row['unit']}")
        if row["ratio"] is not None:
            parts.append(f"(floor {row['floor']:.4g}, ratio {row['ratio']:.3g})")
    return " ".join([*parts, row["note"]]).rstrip()


class Report:
    """What a part is given: where to put rows, the device, whether sizes are tiny, and until when it may run (as of
    `time.time`). Every row also holds the seconds since the part began.
    """

    def __init__(self, part: str, folder: Path, dry: bool, until: float):
        self.part, self.folder, self.dry, self.until = part, folder, dry, until
        self.device = torch.device("cpu" if dry else "cuda")
        self.began = time.time()

    @property
    def time_left(self) -> float:
        return self.until - time.time()

    def measured(
        self, name: str, measured: float, unit: str, *, floor: float | None = None, note: str = "", **more: Any
    ) -> None:
        ratio = measured / floor if floor else None
        self._append("measured", name, measured=measured, unit=unit, floor=floor, ratio=ratio, note=note, **more)

    def check(self, name: str, error: float, bound: float, note: str = "") -> None:
        """`error` must be at most `bound`; a bound of 0 asks for the same bits."""
        passed = math.isfinite(error) and error <= bound
        self._append("check", name, measured=error, unit="", bound=bound, passed=passed, note=note)

    def error(self, name: str, note: str) -> None:
        self._append("error", name, note=note)

    def _append(self, kind: str, name: str, **values: Any) -> None:
        at = round(time.time() - self.began, 2)
        append(self.folder, {"part": self.part, "kind": kind, "name": name, **values, "at": at})

    @contextlib.contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """What raises inside becomes an error row, and the part goes on with the device's memory freed."""
        try:
            yield
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
            self.error(name, f"{text} ({Path(where.filename).name}:{where.lineno})")
            traceback.print_exc()
            traceback.clear_frames(error.__traceback__)
        free_memory()

    def rate(self, name: str) -> float:
        """A ceiling that the part `ceilings` measured, in its unit; NaN when it did not."""
        return self.earlier("ceilings", name)

    def earlier(self, part: str, name: str) -> float:
        """The newest measured value of an earlier row; NaN when there is none."""
        values = [row["measured"] for row in read_rows(self.folder) if (row["part"], row["name"]) == (part, name)]
        return values[-1] if values else math.nan


def free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def relative_error(value: torch.Tensor, truth: torch.Tensor) -> float:
    """|value - truth| / |truth| in float64 on the CPU."""
    value, truth = value.detach().cpu().double(), truth.detach().cpu().double()
    return float((value - truth).norm() / truth.norm())
