"""Training metrics as TensorBoard event files, made from metrics.csv.

metrics.csv is the truth: it survives interruptions row by row, which event files do not. So they are written
from it, whenever asked, for finished and for growing runs.
"""

import csv
import shutil
from pathlib import Path

from stablevelocity.errors import UserError


def write_events(results: Path, output: Path) -> list[str]:
    """Write `output/<run>/` for every run of `results` (results/<study>); returns the names of the runs.

    An earlier export of the same run is replaced. Raises UserError when there is no metrics.csv, or no TensorBoard.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("tensorboard: not installed; install stablevelocity[pipeline]") from None
    found = _metrics(results)
    if not found:
        raise UserError(f"tensorboard: no metrics.csv below {results / 'runs'}")
    for run, path in found.items():
        shutil.rmtree(output / run, ignore_errors=True)
        with open(path, newline="") as file, SummaryWriter(str(output / run)) as writer:
            for row in csv.DictReader(file):
                step = int(row.pop("step"))
                for name, value in row.items():
                    writer.add_scalar(name, float(value), step)
    return list(found)


def _metrics(results: Path) -> dict[str, Path]:
    """By run: its metrics.csv, or the growing one of its newest checkpoint folder."""
    found = {}
    for folder in sorted(path for path in (results / "runs").glob("*") if path.is_dir()):
        growing = sorted(folder.glob("checkpoints/*/metrics.csv"), key=lambda path: path.stat().st_mtime)
        whole = folder / "metrics.csv"
        if whole.exists():
            found[folder.name] = whole
        elif growing:
            found[folder.name] = growing[-1]
    return found
