"""Results of a finished run: kept beside its checkpoints, and published where the workflow declares them.

Snakemake deletes the declared outputs before it starts a rule again, also when the run had finished in between
(its job outlived Snakemake). The kept copy is a hard link, so it takes no space.
"""

import os
import shutil
from pathlib import Path

from stablevelocity.files import atomic_write


def result_files(checkpoints: Path, steps: list[int]) -> list[tuple[int, Path]]:
    """(step, file) of the weights of each kept step, in the folder of the run's checkpoints."""
    return [(step, checkpoints / "result" / f"step-{step:08d}.safetensors") for step in steps]


def publish(checkpoints: Path, folder: Path, steps: list[int]) -> None:
    """Link the results into `folder`: weights/step-*.safetensors and metrics.csv."""
    for _, path in result_files(checkpoints, steps):
        _link(path, folder / "weights" / path.name)
    _link(checkpoints / "result" / "metrics.csv", folder / "metrics.csv")


def _link(source: Path, target: Path) -> None:
    if target.exists() and target.samefile(source):
        return  # not made newer: what follows from it may already be there
    with atomic_write(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, temporary)
        os.utime(temporary)  # as new as what Snakemake believes was just made
