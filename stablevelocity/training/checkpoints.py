"""Checkpoints of a training run: one safetensors file per kept step, written atomically.

They lie in `<run>/checkpoints/<run hash>/`, a folder that the workflow does not declare (Snakemake deletes
declared outputs before a job). The run hash covers settings, data and code: a changed run starts anew in a
folder of its own and the old one stays for whoever goes back to it.
"""

import re
import shutil
from pathlib import Path


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.safetensors"


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps with a whole checkpoint in `folder`, ascending."""
    names = [re.fullmatch(r"step-(\d{8})\.safetensors", path.name) for path in folder.glob("step-*.safetensors")]
    return sorted(int(name.group(1)) for name in names if name)


def prune(folder: Path, keep: set[int]) -> None:
    """Remove every checkpoint but the last two and those of the steps in `keep`."""
    for step in checkpoint_steps(folder)[:-2]:
        if step not in keep:
            checkpoint_path(folder, step).unlink(missing_ok=True)  # an attempt that is being replaced prunes too


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary files (hidden, of any writer) of a process that was killed while it wrote."""
    for path in [*folder.glob(".*"), *folder.glob("result/.*")]:
        shutil.rmtree(path, ignore_errors=True)
