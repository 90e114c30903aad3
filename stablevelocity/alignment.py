"""VA-REPA: align the network's tokens with a frozen encoder's, where the velocity's variance is low.

Source: docs/paper.md#va-repa.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.interpolants import Interpolant, LinearPath

Tokens: TypeAlias = Float[Tensor, "batch tokens channels"]


def _snr(t: Tensor, xi: float, k: float, path: Interpolant) -> Tensor:
    # SNR(t)/(SNR(t) + SNR(xi)) multiplied through by both sigma^2: finite at t = 0, where SNR is not.
    here = (path.alpha(t) * path.sigma(xi)) ** 2
    there = (path.alpha(xi) * path.sigma(t)) ** 2
    return here / (here + there)


SCHEDULES: dict[str, Callable[[Tensor, float, float, Interpolant], Tensor]] = {
    "hard": lambda t, xi, k, path: (t < xi).to(t.dtype),
    "hard_high": lambda t, xi, k, path: (t >= xi).to(t.dtype),
    "sigmoid": lambda t, xi, k, path: torch.sigmoid(k * (xi - t)),
    "cosine": lambda t, xi, k, path: torch.where(t < xi, (1 + torch.cos(math.pi * t / xi)) / 2, 0.0),
    "snr": _snr,
    "uniform": lambda t, xi, k, path: torch.ones_like(t),
}
"""w(t) of each schedule: (t, xi, k, path) -> weights in [0, 1]; the table in docs/paper.md#va-repa."""


def alignment_weight(
    t: Float[Tensor, " batch"],
    schedule: str = "sigmoid",
    xi: float = 0.7,
    k: float = 20.0,
    path: Interpolant | None = None,
) -> Float[Tensor, " batch"]:
    """w(t) in [0, 1] for times t in [0, 1] (the table in docs/paper.md#va-repa).

    `xi` is the split point in (0, 1); `k` the slope of "sigmoid" (the paper's default, 20); `path`, used by "snr" only,
    is the linear one unless given. Raises UserError on an unknown schedule or an xi outside (0, 1).
    """
    if schedule not in SCHEDULES:
        raise UserError(f"alignment schedule {schedule!r}; expected one of {', '.join(SCHEDULES)}")
    if not 0 < xi < 1:
        raise UserError(f"alignment split point xi = {xi}; expected 0 < xi < 1")
    return SCHEDULES[schedule](t, xi, k, path or LinearPath())


def negative_cosine(projections: Tokens, features: Tokens) -> Float[Tensor, " batch"]:
    """l_RA: minus the cosine between the two, mean over tokens; per sample, in [-1, 1], in float32."""
    with torch.autocast(projections.device.type, enabled=False):
        cosine = torch.nn.functional.cosine_similarity(projections.float(), features.float(), dim=-1)
        return -cosine.mean(-1)


def alignment_loss(
    projections: Tokens, features: Tokens, weights: Float[Tensor, " batch"], normaliser: Float[Tensor, ""] | None = None
) -> Float[Tensor, ""]:
    """sum_b w_b l_RA,b / sum_b w_b (docs/paper.md#va-repa), without the factor lambda.

    When all weights are zero (the whole batch above xi under "hard" or "cosine") the loss and its gradient
    are zero. `normaliser` is the sum of weights to divide by, that of this batch unless given: a process that
    holds a slice of the batch gives that of the whole, and the slices' losses add up to the batch's.
    """
    weights = weights.float()
    total = weights.sum() if normaliser is None else normaliser.float()
    loss = (weights * negative_cosine(projections, features)).sum()
    # Divide by 1 where the sum is 0: then the weights are all 0, and so is the loss.
    return loss / torch.where(total > 0, total, torch.ones_like(total))


def spatial_normalise(features: Tokens, gamma: float = 0.6) -> Tokens:
    """iREPA's (z - gamma mean)/(std + 1e-6), mean and sample standard deviation over tokens (docs/paper.md#va-repa).

    Takes away most of what all tokens share, so that the alignment is about spatial structure. Float32 inside.
    """
    wide = features.float()
    mean, deviation = wide.mean(1, keepdim=True), wide.std(1, keepdim=True)
    return ((wide - gamma * mean) / (deviation + 1e-6)).to(features.dtype)
