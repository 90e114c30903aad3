"""The one training loop for networks that train on a CPU in seconds to minutes.

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    train_small("autoencoder", model, loss, optimizer, schedule, steps=steps)

All that differs between networks is in `loss()`, which draws a batch from the caller's own generator and returns its
loss: a fixed seed before the model is built and another in that generator fix every bit of the result.
"""

import copy
import math
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stablevelocity.errors import UserError
from stablevelocity.progress import Progress

Network = TypeVar("Network", bound=nn.Module)


def train_small(
    name: str,
    model: Network,
    loss: Callable[[], Float[Tensor, ""]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    steps: int,
    clip: float | None = 1.0,
    ema: float | None = None,
    advice: str = "lower the learning rate",
) -> tuple[Network | None, list[float]]:
    """Train `model` in place for `steps` steps of `optimizer` and `schedule`; it ends in evaluation mode.

    Return (average of the weights, None without `ema`; loss of each step).

    `clip` bounds the norm of the gradient. `ema` is the decay of an average of the weights, which starts at the
    initial ones and is warmed up (`warmed_decay`). `name` stands in the log.

    Raises UserError with `advice` when the loss is not finite; the weights are then those before that step.
    """
    average = None if ema is None else copy.deepcopy(model).requires_grad_(False)
    progress = Progress(name, steps, "steps")
    losses = []
    model.train()
    for step in range(steps):
        value = loss()
        losses.append(value.item())
        if not math.isfinite(losses[-1]):
            raise UserError(f"{name}: the loss is {losses[-1]} at step {step}; {advice}")
        optimizer.zero_grad()
        value.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        schedule.step()
        if average is not None and ema is not None:
            update_average(average.parameters(), model.parameters(), warmed_decay(ema, step))
        progress.update(loss=losses[-1])
    model.eval()
    return None if average is None else average.eval(), losses


def warmed_decay(decay: float, step: int) -> float:
    """The decay after step `step` (counted from 0): young averages forget the initial weights faster."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_average(average: Iterable[Tensor], weights: Iterable[Tensor], decay: float) -> None:
    """Exponential moving average, in place: average <- decay average + (1 - decay) weights."""
    torch._foreach_lerp_(list(average), list(weights), 1 - decay)
