"""Checkpoints of a training run: one safetensors file per kept step, written atomically.

They lie in `<run>/checkpoints/<run hash>/`, a folder that the workflow does not declare (Snakemake deletes
declared outputs before a job). The run hash covers settings, data and code: a changed run starts anew in a
folder of its own and the old one stays for whoever goes back to it.
"""

import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.models.weight_files import load_tensors, save_tensors
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
        if (loaded := load_or_put_aside(folder, step, main)) is not None:
            for later in [other for other in there if other > step and main]:
                checkpoint_path(folder, later).unlink(missing_ok=True)
            return loaded
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
    loaded = load_or_put_aside(folder, step)
    if loaded is None:
        raise UserError(f"{checkpoint_path(folder, step)}: is damaged; start again, and it is made again")
    return loaded


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


class CheckpointWriter:
    """Writes checkpoints into `folder` while training goes on, one at a time, and prunes after each (`keep`: `prune`).

    A checkpoint is the state of the step at which it was asked for, copied at once and written in a thread. It appears
    when it is whole, so a run that dies before that goes on from the one before. What the thread raises (UserError when
    the disk is full) is raised by the next call of `check`, `write` or `wait`. Leaving the context waits until
    everything is on disk. Takes the memory of one state on the host.
    """

    def __init__(self, folder: Path, keep: set[int]):
        self._folder, self._keep = folder, keep
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        self._copy: dict[str, Tensor] = {}  # kept: touching fresh memory is what takes longest in a copy

    def write(self, step: int, state: dict[str, Tensor], info: dict[str, Any]) -> None:
        """Copy the state and write it as the checkpoint of `step`, after the one before is on disk."""
        self.wait()
        for name, value in state.items():
            if name not in self._copy:
                self._copy[name] = torch.empty_like(value, device="cpu")
            self._copy[name].copy_(value.detach())
        self._pending = self._thread.submit(self._write, step, {name: self._copy[name] for name in state}, info)

    def _write(self, step: int, state: dict[str, Tensor], info: dict[str, Any]) -> None:
        save_tensors(checkpoint_path(self._folder, step), state, info)
        prune(self._folder, self._keep)

    def check(self) -> None:
        """Raise what a write that has ended in the meantime raised; waits for none."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Until what was asked for is on disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.wait()
        elif self._pending is not None:
            self._pending.exception()  # waits; the error that is on its way is the one to tell
