"""Euler, Heun and Euler-Maruyama along a velocity field, and their time grids.

Conventions: docs/paper.md#imagenet and docs/paper.md#checkpoints.

Every solver takes `velocity(x, t)` with t a number, a starting state x (B, ...) at `times[0]` and a strictly
decreasing 1-D grid of times in [0, 1]; it returns the state at `times[-1]`. The state is kept in float64 so
that small steps do not drown in rounding; the velocity is called with the dtype that x came in, so a float32
network stays a float32 network.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.interpolants import Interpolant

Velocity: TypeAlias = Callable[[Tensor, float], Tensor]

DIFFUSIONS: dict[str, Callable[[float], float]] = {"t": lambda t: t, "2t": lambda t: 2 * t}
"""The coefficient g(t) of Euler-Maruyama: `t` in the paper's released code, `2t` in REPA's and most others'."""


def uniform_times(steps: int) -> Float64[Tensor, " times"]:
    """`steps` + 1 equal points from 1 to 0, each the float64 nearest to its fraction.

    (So a guidance interval that ends at 0.7 includes the grid point 175/250, which a running sum may miss.)
    """
    if steps < 1:
        raise UserError(f"uniform_times: {steps} steps; expected at least 1")
    return torch.arange(steps, -1, -1, dtype=torch.float64) / steps


def euler_maruyama_times(steps: int, last: float = 0.04) -> Float64[Tensor, " times"]:
    """`steps` - 1 equal steps from 1 to `last`, then one to 0 (docs/paper.md#imagenet: 250 steps)."""
    if steps < 2 or not 0 < last < 1:
        raise UserError(f"euler_maruyama_times: {steps} steps, last {last}; expected >= 2 and 0 < last < 1")
    noisy = 1 - (1 - last) * torch.arange(steps - 1, dtype=torch.float64) / (steps - 1)
    return torch.cat([noisy, torch.tensor([last, 0.0], dtype=torch.float64)])


def euler(
    velocity: Velocity, x: Float[Tensor, "batch *shape"], times: Float64[Tensor, " times"]
) -> Float64[Tensor, "batch *shape"]:
    """x <- x + (tau - t) v(x, t). First order; one call a step."""
    state, call = _start(velocity, x, times)
    for t, tau in pairwise(times.tolist()):
        state = state + (tau - t) * call(state, t)
    return state


def heun(
    velocity: Velocity, x: Float[Tensor, "batch *shape"], times: Float64[Tensor, " times"]
) -> Float64[Tensor, "batch *shape"]:
    """Euler, then the mean of the slopes at both ends of the step. Second order.

    The step that ends at t = 0 is plain Euler, because there sigma = 0 and no network was trained: N steps
    to 0 cost 2N - 1 calls. Guidance is tested again at the second call's time, since the velocity is asked.
    """
    state, call = _start(velocity, x, times)
    for t, tau in pairwise(times.tolist()):
        slope = call(state, t)
        if tau > 0:
            slope = (slope + call(state + (tau - t) * slope, tau)) / 2
        state = state + (tau - t) * slope
    return state


def euler_maruyama(
    velocity: Velocity,
    x: Float[Tensor, "batch *shape"],
    times: Float64[Tensor, " times"],
    *,
    path: Interpolant,
    diffusion: str = "t",
    generator: torch.Generator | None = None,
) -> Float64[Tensor, "batch *shape"]:
    """Reverse-time SDE dx = [v - (g/2) s] dt + sqrt(g) dW with the score s of the velocity.

    Every g keeps the marginal laws; g is `t` or `2t` (see `DIFFUSIONS`). Weak order one. The step that ends
    at t = 0 adds no noise: it lands on the mean. Noise is drawn on the generator's device, one draw of
    x's shape a step, so the result does not depend on where the network runs. Raises UserError for another g.
    """
    if diffusion not in DIFFUSIONS:
        raise UserError(f"euler_maruyama: diffusion {diffusion!r}; expected one of {', '.join(DIFFUSIONS)}")
    state, call = _start(velocity, x, times)
    for t, tau in pairwise(times.tolist()):
        v, g = call(state, t), DIFFUSIONS[diffusion](t)
        drift = v - g / 2 * path.score_from_velocity(state, v, t)
        state = state + (tau - t) * drift
        if tau > 0:
            state = state + (g * (t - tau)) ** 0.5 * noise_like(state, generator)
    return state


def noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal draws of x's shape and dtype, made on the generator's device (x's without one)."""
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, dtype=x.dtype, device=device, generator=generator).to(x.device)


def check_times(times: Tensor) -> None:
    """Raise UserError unless `times` is a strictly decreasing 1-D grid in [0, 1] of two points or more."""
    if times.ndim != 1 or len(times) < 2 or bool((times.diff() >= 0).any()):
        raise UserError(f"times: shape {tuple(times.shape)}; expected two or more, strictly decreasing")
    if times[0] > 1 or times[-1] < 0:
        raise UserError(f"times: from {float(times[0]):g} to {float(times[-1]):g}; expected within [0, 1]")


def _start(velocity: Velocity, x: Tensor, times: Tensor) -> tuple[Tensor, Velocity]:
    """The float64 state, and the velocity called in x's own dtype."""
    check_times(times)
    dtype = x.dtype

    def call(state: Tensor, t: float) -> Tensor:
        return velocity(state.to(dtype), t).to(torch.float64)

    return x.to(torch.float64), call
