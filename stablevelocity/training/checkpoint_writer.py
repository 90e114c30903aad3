"""Checkpoints written while training goes on.

A checkpoint is the state of the step at which it was asked for, copied at once and written in a thread. It appears when
it is whole, so a run that dies before that goes on from the one before.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stablevelocity.models.weight_files import save_tensors
from stablevelocity.training.checkpoints import checkpoint_path, prune


class CheckpointWriter:
    """Writes checkpoints into `folder` in a thread, one at a time, and prunes after each (`keep` as for `prune`).

    What the thread raises (UserError when the disk is full) is raised by the next call of `check`, `write` or `wait`.
    Leaving the context waits until everything is on disk. Takes the memory of one state on the host.
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
