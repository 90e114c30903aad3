"""Grids of times from 1 (noise) to 0 (data), and which of their steps StableVS keeps (docs/paper.md#stablevs).

A time stands for the noise level too: sigma = t on the linear path, so schedulers thin their sigmas by the same rule.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from stablevelocity.errors import UserError


def uniform_times(steps: int, shift: float = 1.0) -> Float64[Tensor, " times"]:
    """`steps` + 1 equal points from 1 to 0, each the float64 nearest to its fraction; `shift` s: s t/(1 + (s - 1) t).

    (So a guidance interval that ends at 0.7 includes the grid point 175/250, which a running sum may miss.)
    """
    if steps < 1:
        raise UserError(f"uniform_times: {steps} steps; expected at least 1")
    times = torch.arange(steps, -1, -1, dtype=torch.float64) / steps
    return shift * times / (1 + (shift - 1) * times)


def euler_maruyama_times(steps: int, last: float = 0.04) -> Float64[Tensor, " times"]:
    """`steps` - 1 equal steps from 1 to `last`, then one to 0 (docs/paper.md#imagenet: 250 steps)."""
    if steps < 2 or not 0 < last < 1:
        raise UserError(f"euler_maruyama_times: {steps} steps, last {last}; expected >= 2 and 0 < last < 1")
    noisy = 1 - (1 - last) * torch.arange(steps - 1, dtype=torch.float64) / (steps - 1)
    return torch.cat([noisy, torch.tensor([last, 0.0], dtype=torch.float64)])


def check_times(times: Tensor) -> None:
    """Raise UserError unless `times` is a strictly decreasing 1-D grid in [0, 1] of two points or more."""
    if times.ndim != 1 or len(times) < 2 or bool((times.diff() >= 0).any()):
        raise UserError(f"times: shape {tuple(times.shape)}; expected two or more, strictly decreasing")
    if times[0] > 1 or times[-1] < 0:
        raise UserError(f"times: from {float(times[0]):g} to {float(times[-1]):g}; expected within [0, 1]")


def thinned_indices(
    sigmas: Float[np.ndarray, " steps"], xi: float, low_steps: int, *, skip_smallest: bool
) -> list[int]:
    """Indices of the steps of a base grid that the thinned one keeps, in order.

    `sigmas` are the starting noise levels of the base steps, strictly decreasing, in (0, 1], without the
    final 0. All sigma >= xi are kept. Of the m below, `low_steps` at round(linspace(0, L, low_steps)) with
    L = m - 1, or m - 2 where `skip_smallest` (the released Euler scheduler never uses the smallest sigma).
    Where nothing is to be thinned (m <= low_steps) all m are kept. Halves round to even, as numpy rounds.
    """
    high = int(np.count_nonzero(sigmas >= xi))
    low = len(sigmas) - high
    if low <= low_steps:
        return list(range(len(sigmas)))
    last = low - 2 if skip_smallest else low - 1
    offsets = np.round(np.linspace(0, last, low_steps)).astype(int)
    return [*range(high), *(high + int(offset) for offset in offsets)]


def thin_times(times: Float64[Tensor, " times"], xi: float, low_steps: int) -> Float64[Tensor, " thinned"]:
    """`times`, which end at 0, thinned below xi to `low_steps` steps as the released Euler scheduler is."""
    check_times(times)
    if times[-1] != 0 or low_steps < 1:
        raise UserError(f"thin_times: last time {float(times[-1]):g}, low_steps {low_steps}; expected 0 and >= 1")
    kept = thinned_indices(times[:-1].numpy(force=True), xi, low_steps, skip_smallest=True)
    return times[[*kept, -1]]
