"""Training metrics as TensorBoard event files, made from metrics.csv.

metrics.csv is the truth: it survives interruptions row by row, which event files do not. So they are written
from it, whenever asked, for finished and for growing runs.
"""

import csv
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
    for run, rows in {run: _rows(path) for run, path in paths.items()}.items():
        for former in (output / run).glob("events.out.tfevents.*"):  # of that name only: a run's own folder has more
            former.unlink()
        with SummaryWriter(str(output / run)) as writer:
            for step, values in rows:
                for name, value in values.items():
                    writer.add_scalar(name, value, step)
    return list(paths)


def _rows(path: Path) -> list[tuple[int, dict[str, float]]]:
    """(step, values) of each row of a metrics.csv."""
    rows = []
    with open(path, newline="") as file:
        for row in (reader := csv.DictReader(file)):
            try:
                if not 0 <= (step := int(row.pop("step"))) < 2**63:
                    raise ValueError
                rows.append((step, {name: float(value) for name, value in row.items()}))
            except (KeyError, ValueError, TypeError):
                raise UserError(f"{path}: line {reader.line_num} is no row of metrics") from None
    return rows


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
