"""The steps of the part `training` without compilation: what compiling brings."""

import tempfile
from pathlib import Path

from benchmarks.gpu.rows import Report
from benchmarks.gpu.training import measure_arm, prepare


def run(report: Report) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with report.guarded("data"):
            prepare(report, data)
        for arm in ("sit", "stablevm-va-repa"):
            with report.guarded(arm):
                measure_arm(report, arm, data, Path(folder) / arm, compiled=False, label=", not compiled")
