"""Classifier-free guidance on an interval of times (docs/paper.md#imagenet and docs/paper.md#checkpoints)."""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.sampling.solvers import Velocity


def guided_velocity(
    model: Callable[[Tensor, Tensor, Tensor], Tensor],
    labels: Int[Tensor, " batch"],
    *,
    null_class: int,
    scale: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Velocity:
    """A velocity(x, t) for the solvers: u + scale (c - u) where low <= t <= high, plain c elsewhere.

    `model(x, t, y)` with t (B,) in x's dtype and y (B,) is a class-conditional velocity, such as `SiT.velocity`. Inside
    the closed interval it is called once on 2B rows, the conditional half first; outside, and with scale 1
    anywhere, on B rows. Raises UserError unless low <= high.
    """
    low, high = interval
    if low > high:
        raise UserError(f"guidance interval ({low:g}, {high:g}); expected low <= high")

    def velocity(x: Tensor, t: float) -> Tensor:
        if scale == 1 or not low <= t <= high:
            return model(x, torch.full((len(x),), t, dtype=x.dtype, device=x.device), labels)
        both = model(
            torch.cat([x, x]),
            torch.full((2 * len(x),), t, dtype=x.dtype, device=x.device),
            torch.cat([labels, torch.full_like(labels, null_class)]),
        )
        conditional, unconditional = both.chunk(2)
        return unconditional + scale * (conditional - unconditional)

    return velocity
