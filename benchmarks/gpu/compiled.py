"""The steps of the part `training` under torch.compile: the whole network, as the trainer does, and block by block."""

import functools
import tempfile
from pathlib import Path
from unittest import mock

import torch

from benchmarks.gpu.rows import Report
from benchmarks.gpu.training import measure_arm, prepare
from stablevelocity.training.trainer import Trainer


def run(report: Report) -> None:
    with tempfile.TemporaryDirectory() as folder, compiler(report.dry):
        data = Path(folder) / "data"
        with report.guarded("data"):
            prepare(report, data)
        with report.guarded("sit, compiled"):
            measure_arm(report, "sit", data, Path(folder) / "a", compiled=True, label=", compiled")
        torch.compiler.reset()
        with report.guarded("stablevm-va-repa, blocks compiled"):
            label = ", blocks compiled"
            measure_arm(
                report, "stablevm-va-repa", data, Path(folder) / "b", compiled=False, change=by_block, label=label
            )
        torch.compiler.reset()
        with report.guarded("stablevm-va-repa, compiled"):
            measure_arm(report, "stablevm-va-repa", data, Path(folder) / "c", compiled=True, label=", compiled")


def by_block(trainer: Trainer) -> None:
    """Each block by itself: one compilation serves them all."""
    for block in trainer.model.blocks:
        block.compile()


def compiler(dry: bool) -> mock._patch:
    """In a dry run Dynamo alone, without the code that Inductor would have built by a C++ compiler."""
    cheap = functools.partial(torch.compile, backend="eager")
    return mock.patch("torch.compile", cheap if dry else torch.compile)
