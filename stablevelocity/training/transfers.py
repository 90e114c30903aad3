"""Between host and accelerator without a wait: what a step needs goes up beside the step before, what it tells comes
down while more work is queued. On a CPU all of it is nothing.
"""

import torch
from torch import Tensor


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """In page-locked memory where `device` is an accelerator: from there `on_device` copies without a wait."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A host tensor on `device`; the copy takes its place in the queue of the device."""
    return tensor.to(device, non_blocking=True)


class HostCopy:
    """A small tensor on its way to the host: `tolist` waits for what was queued before the copy, not after it."""

    def __init__(self, tensor: Tensor):
        self._copy = tensor.to("cpu", non_blocking=True)
        self._arrived = torch.cuda.Event(blocking=True) if tensor.is_cuda else None
        if self._arrived is not None:
            self._arrived.record()

    def tolist(self) -> list[float]:
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._copy.tolist()
