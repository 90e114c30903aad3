"""StableVS: closed-form steps below the split point xi, where one data mode dominates (docs/paper.md#stablevs).

If x_t was noised from one x_0, the velocity at t tells x_0 and the noise, and any later state follows
without a solver: x_tau = alpha_tau x_0 + sigma_tau eps. Written as weights of x_t and v_t,

    x_tau = (rho - lambda sigma'_t/sigma_t) x_t + lambda v_t + beta z,      z ~ N(0, I),
    beta = f sigma_tau,  rho = sqrt((sigma_tau^2 - beta^2)/sigma_t^2),  lambda = (alpha_tau - alpha_t rho)/C_t,

with C_t = alpha'_t - alpha_t sigma'_t/sigma_t. f (the noise factor) = 0 is the paper's ODE form: its
sigma_tau Psi is lambda, because C(s)/sigma_s is the derivative of alpha/sigma. f = 1 forgets x_t's noise and
draws fresh noise around the posterior mean. On the linear path with f = 0 the step is Euler's, exactly; any
gain there comes from where the steps are placed, so keep the base solver on the same grid as a control.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.interpolants import Interpolant, LinearPath, State
from stablevelocity.sampling.solvers import End, Times, Velocity, euler, in_float64, noise_like

BaseSolver: TypeAlias = Callable[[Velocity, Tensor, Tensor], Tensor]


class StepWeights(NamedTuple):
    """x_tau = state x_t + velocity v_t + noise z."""

    state: float
    velocity: float
    noise: float


def step_weights(path: Interpolant, t: float, tau: float, noise_factor: float = 0.0) -> StepWeights:
    """Weights of the closed-form step from t to tau < t, in float64. Fine at tau = 0; needs t > 0.

    Raises UserError unless 0 <= tau < t <= 1 and 0 <= noise_factor <= 1.
    """
    if not 0 <= tau < t <= 1:
        raise UserError(f"StableVS step from t = {t:g} to {tau:g}; expected 0 <= tau < t <= 1")
    if not 0 <= noise_factor <= 1:
        raise UserError(f"noise_factor {noise_factor:g}; expected 0 to 1")
    alpha, sigma = float(path.alpha(t)), float(path.sigma(t))
    ratio = float(path.sigma_dot(t)) / sigma
    sigma_tau = float(path.sigma(tau))
    rho = sigma_tau * (1 - noise_factor**2) ** 0.5 / sigma
    slope = float(path.alpha_dot(t)) - alpha * ratio
    if slope == 0:
        raise UserError(f"StableVS: on this path the velocity at t = {t:g} says nothing of the data; start later")
    weight = (float(path.alpha(tau)) - alpha * rho) / slope
    return StepWeights(rho - weight * ratio, weight, noise_factor * sigma_tau)


def is_euler(path: Interpolant, noise_factor: float) -> bool:
    """Whether the closed-form step is Euler's: on the linear path, without noise."""
    return isinstance(path, LinearPath) and noise_factor == 0


def stablevs(
    velocity: Velocity,
    x: State,
    times: Times,
    *,
    xi: float,
    path: Interpolant,
    noise_factor: float = 0.0,
    generator: torch.Generator | None = None,
    base: BaseSolver = euler,
) -> End:
    """The base solver for steps that start at t >= xi, closed-form steps for those that start below.

    `times` as for the solvers (thin the part below xi with `thin_times`); `base(velocity, x, times)` is any
    of them, with its options bound by `functools.partial`. One call of the velocity for each step below xi.
    The result is float64; the velocity is called in x's dtype. Raises UserError unless 0 <= xi <= 1.
    """
    if not 0 <= xi <= 1:
        raise UserError(f"xi {xi:g}; expected 0 to 1")
    high = min(int((times >= xi).sum()), len(times) - 1)
    state, call = in_float64(velocity, x, times)
    if high:
        state = base(call, state, times[: high + 1])
    for t, tau in pairwise(times[high:].tolist()):
        slope = call(state, t)
        if is_euler(path, noise_factor):  # to the last bit, which weights that are 1 and tau - t up to rounding are not
            state = state + (tau - t) * slope
            continue
        weights = step_weights(path, t, tau, noise_factor)
        state = weights.state * state + weights.velocity * slope
        if weights.noise:
            state = state + weights.noise * noise_like(state, generator)
    return state
