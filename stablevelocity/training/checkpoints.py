"""Checkpoints of a training run: one safetensors file per kept step, written atomically.

They lie in `<run>/checkpoints/<run hash>/`, a folder that the workflow does not declare (Snakemake deletes
declared outputs before a job). The run hash covers settings, data and code: a changed run starts anew in a
folder of its own and the old one stays for whoever goes back to it.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.models.weight_files import load_tensors
from stablevelocity.progress import log


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.safetensors"


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps with a whole checkpoint in `folder`, ascending."""
    names = [re.fullmatch(r"step-(\d{8})\.safetensors", path.name) for path in folder.glob("step-*.safetensors")]
    return sorted(int(name.group(1)) for name in names if name)


def load_last(folder: Path, kept: list[int], main: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """State and info of the last whole checkpoint, None when there is none.

    A damaged one is put aside as `.damaged` by the main process, and the one before is taken. So is the one before a
    step in `kept` whose checkpoint is gone: that step is made again.
    """
    there = checkpoint_steps(folder)
    gone = min((step for step in kept if step not in there), default=None)
    for step in reversed([step for step in there if gone is None or step < gone]):
        if (found := load_or_put_aside(folder, step, main)) is not None:
            for later in [other for other in there if other > step and main]:
                checkpoint_path(folder, later).unlink(missing_ok=True)
            return found
    return None


def load_or_put_aside(folder: Path, step: int, main: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """State and info of a checkpoint; None when it is damaged, and then it is put aside."""
    path = checkpoint_path(folder, step)
    try:
        return load_tensors(path, checksum=True)
    except UserError as error:
        if main and path.exists():
            path.rename(path.with_name(f"{path.name}.damaged"))
            log.warning(f"{error}; put aside as {path.name}.damaged, the one before it is taken")
        return None


def load_kept(folder: Path, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State and info of a checkpoint whose weights are a result. Raises UserError when it is damaged."""
    found = load_or_put_aside(folder, step)
    if found is None:
        raise UserError(f"{checkpoint_path(folder, step)}: is damaged; start again, and it is made again")
    return found


def tell_of_others(folder: Path) -> None:
    """Say that a run which starts at step 0 has checkpoints of other settings, data or code."""
    others = [other for other in folder.parent.glob("*/") if other != folder and checkpoint_steps(other)]
    for other in others:
        step = checkpoint_steps(other)[-1]
        log.info(f"{folder.parent}: starts at step 0; {other.name}/ has step {step} of other settings, data or code")


def prune(folder: Path, keep: set[int]) -> None:
    """Remove every checkpoint but the last two and those of the steps in `keep`."""
    for step in checkpoint_steps(folder)[:-2]:
        if step not in keep:
            checkpoint_path(folder, step).unlink(missing_ok=True)  # an attempt that is being replaced prunes too


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary files (hidden, of any writer) of a process that was killed while it wrote."""
    for path in [*folder.glob(".*"), *folder.glob("result/.*")]:
        shutil.rmtree(path, ignore_errors=True)
