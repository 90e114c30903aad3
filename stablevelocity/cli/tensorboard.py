"""Training metrics as TensorBoard event files, made from metrics.csv.

metrics.csv is the truth: it survives interruptions row by row, which event files do not. So they are written
from it, whenever asked, for finished and for growing runs.
"""

import csv
import shutil
from pathlib import Path

from stablevelocity.errors import UserError
from stablevelocity.study.layout import Layout


def write_events(results: Path, output: Path) -> list[str]:
    """Write `output/<run>/` for every run of `results` (results/<study>); returns the names of the runs.

    An earlier export of the same run is replaced. Raises UserError when there is no metrics.csv, or no TensorBoard.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("tensorboard: not installed; install stablevelocity[pipeline]") from None
    layout = Layout(str(results))
    paths = _metrics(layout)
    if not paths:
        raise UserError(f"tensorboard: no metrics.csv below {layout.runs}")
    for run, path in paths.items():
        shutil.rmtree(output / run, ignore_errors=True)
        with open(path, newline="") as file, SummaryWriter(str(output / run)) as writer:
            for row in csv.DictReader(file):
                step = int(row.pop("step"))
                for name, value in row.items():
                    writer.add_scalar(name, float(value), step)
    return list(paths)


def _metrics(layout: Layout) -> dict[str, Path]:
    """By run: its metrics.csv, or the growing one of its newest checkpoint folder."""
    paths = {}
    for folder in sorted(path for path in Path(layout.runs).glob("*") if path.is_dir()):
        files = layout.run(folder.name)
        if files.metrics.exists():
            paths[folder.name] = files.metrics
        elif files.growing_metrics:
            paths[folder.name] = files.growing_metrics[-1]
    return paths
