"""Euler, Heun and Euler-Maruyama along a velocity field (docs/paper.md#imagenet and docs/paper.md#checkpoints).

Every solver takes `velocity(x, t)` with t a number, a starting state x (B, ...) at `times[0]` and a strictly
decreasing 1-D grid of times in [0, 1]; it returns the state at `times[-1]`. The state is kept in float64 so
that small steps do not drown in rounding; the velocity is called with the dtype that x came in, so a float32
network stays a float32 network.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.interpolants import Interpolant, State
from stablevelocity.sampling.grid import check_times

Velocity: TypeAlias = Callable[[Tensor, float], Tensor]
Times: TypeAlias = Float64[Tensor, " times"]
End: TypeAlias = Float64[Tensor, "batch *shape"]

DIFFUSIONS: dict[str, Callable[[float], float]] = {"t": lambda t: t, "2t": lambda t: 2 * t}
"""The coefficient g(t) of Euler-Maruyama: `t` in the paper's released code, `2t` in REPA's and most others'."""


def euler_step(velocity: Velocity, x: Tensor, t: float, tau: float) -> Tensor:
    """x + (tau - t) v(x, t)."""
    return x + (tau - t) * velocity(x, t)


def heun_step(velocity: Velocity, x: Tensor, t: float, tau: float) -> Tensor:
    """Euler's step, then the mean of the slopes at both of its ends."""
    slope = velocity(x, t)
    slope = (slope + velocity(x + (tau - t) * slope, tau)) / 2
    return x + (tau - t) * slope


def euler(velocity: Velocity, x: State, times: Times) -> End:
    """First order; one call a step."""
    state, call = in_float64(velocity, x, times)
    for t, tau in pairwise(times.tolist()):
        state = euler_step(call, state, t, tau)
    return state


def heun(velocity: Velocity, x: State, times: Times) -> End:
    """Second order; two calls a step.

    The step that ends at t = 0 is plain Euler, because there sigma = 0 and no network was trained: N steps
    to 0 cost 2N - 1 calls. Guidance is tested again at the second call's time, since the velocity is asked.
    """
    state, call = in_float64(velocity, x, times)
    for t, tau in pairwise(times.tolist()):
        state = (heun_step if tau > 0 else euler_step)(call, state, t, tau)
    return state


def euler_maruyama(
    velocity: Velocity,
    x: State,
    times: Times,
    *,
    path: Interpolant,
    diffusion: str = "t",
    generator: torch.Generator | None = None,
) -> End:
    """Reverse-time SDE dx = [v - (g/2) s] dt + sqrt(g) dW with the score s of the velocity.

    Every g keeps the marginals; g is `t` or `2t` (see `DIFFUSIONS`). Weak order one. The step that ends
    at t = 0 adds no noise: it lands on the mean. Noise is drawn on the generator's device, one draw of
    x's shape a step, so the result does not depend on where the network runs. Raises UserError for another g.
    """
    if diffusion not in DIFFUSIONS:
        raise UserError(f"euler_maruyama: diffusion {diffusion!r}; expected one of {', '.join(DIFFUSIONS)}")
    state, call = in_float64(velocity, x, times)
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


def in_float64(velocity: Velocity, x: Tensor, times: Tensor) -> tuple[Tensor, Velocity]:
    """The float64 state, and the velocity called in x's own dtype."""
    check_times(times)
    dtype = x.dtype

    def call(state: Tensor, t: float) -> Tensor:
        return velocity(state.to(dtype), t).to(torch.float64)

    return x.to(torch.float64), call
