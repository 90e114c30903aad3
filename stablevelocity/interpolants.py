"""Paths from data to noise: x_t = alpha_t x_0 + sigma_t eps, t = 0 data and t = 1 noise (docs/paper.md#conventions).

A path is two scalar functions of t and their derivatives. Everything else follows from the two linear equations

    x = alpha m + sigma e,        v = alpha' m + sigma' e,

which tie the state x and the velocity v to the clean part m and the noise part e. When m is one sample x_0, v is the
conditional velocity; when m is the posterior mean E[x_0 | x_t], v is the marginal velocity, because the equations are
linear. Their determinant alpha' sigma - alpha sigma' does not vanish on [0, 1] for the paths here (-1 on the linear
path, -pi/2 on the cosine path), so going from (x, v) to (m, e) is safe at both ends.

Only two directions divide by something that vanishes at an end, and each says there what happens:
from (x, m) to v at sigma = 0, and to or from the score.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from stablevelocity.errors import UserError

Time: TypeAlias = float | int | Float[Tensor, "..."]
"""A time in [0, 1]: one number for the whole batch, or a tensor (B,) with one per sample."""
State: TypeAlias = Float[Tensor, "batch *shape"]


def as_time(t: Time) -> Tensor:
    """A number becomes a float64 scalar tensor (which never changes the dtype of what it multiplies)."""
    return t if isinstance(t, Tensor) else torch.tensor(float(t), dtype=torch.float64)


class Interpolant:
    """A path given by alpha, sigma and their derivatives. Subclasses say these four; the rest is shared.

    The four take a time of any shape and return a tensor of that shape. The methods below take states (B,
    ...) with a time that is a number, a scalar tensor or (B,); coefficients are computed in the wider of the
    two dtypes (float32 at least), results have the dtype of the state.
    """

    def alpha(self, t: Time) -> Tensor:
        """Weight of the data, 1 at t = 0."""
        raise NotImplementedError

    def sigma(self, t: Time) -> Tensor:
        """Weight of the noise, 1 at t = 1."""
        raise NotImplementedError

    def alpha_dot(self, t: Time) -> Tensor:
        """Derivative of alpha."""
        raise NotImplementedError

    def sigma_dot(self, t: Time) -> Tensor:
        """Derivative of sigma."""
        raise NotImplementedError

    def interpolate(self, x0: State, noise: State, t: Time) -> State:
        """x_t = alpha x_0 + sigma eps. At t = 0 it is x0, at t = 1 noise, exactly."""
        alpha, sigma, _, _ = self.coefficients(x0, t)
        return (alpha * x0 + sigma * noise).to(x0.dtype)

    def velocity_from_noise(self, x0: State, noise: State, t: Time) -> State:
        """dx_t/dt = alpha' x_0 + sigma' eps: the conditional velocity when the noise is at hand. No division."""
        _, _, alpha_dot, sigma_dot = self.coefficients(x0, t)
        return (alpha_dot * x0 + sigma_dot * noise).to(x0.dtype)

    def conditional_velocity(self, x_t: State, x0: State, t: Time) -> State:
        """v_t(x_t | x_0) = (sigma'/sigma)(x_t - alpha x_0) + alpha' x_0 (docs/paper.md#conventions).

        Where sigma is exactly 0 (t = 0), x_t is x_0 and says nothing about the noise: its mean, zero, stands
        in, so the value is alpha' x_0, the conditional mean there. Near t = 0 the rounding of x_t is divided
        by sigma; use `velocity_from_noise` when the noise is known.
        """
        return self.velocity_from_posterior_mean(x_t, x0, t)

    def velocity_from_posterior_mean(self, x_t: State, mean: State, t: Time) -> State:
        """v = (sigma'/sigma) x_t + (alpha' - alpha sigma'/sigma) mean (docs/paper.md#conventions).

        Where sigma is exactly 0 (t = 0) the noise part is zero and the value alpha' mean: the limit of the
        marginal velocity for every smooth data distribution, since E[eps | x_t] = -sigma score goes to 0 there.
        """
        alpha, sigma, alpha_dot, sigma_dot = self.coefficients(x_t, t)
        noise = (x_t - alpha * mean) / torch.where(sigma == 0, torch.inf, sigma)
        return (alpha_dot * mean + sigma_dot * noise).to(x_t.dtype)

    def posterior_mean_from_velocity(self, x_t: State, v: State, t: Time) -> State:
        """E[x_0 | x_t] = (sigma v - sigma' x_t)/(sigma alpha' - alpha sigma'). Finite at both ends; x_t at t = 0."""
        alpha, sigma, alpha_dot, sigma_dot = self.coefficients(x_t, t)
        determinant = alpha_dot * sigma - alpha * sigma_dot
        return ((sigma * v - sigma_dot * x_t) / determinant).to(x_t.dtype)

    def noise_from_velocity(self, x_t: State, v: State, t: Time) -> State:
        """E[eps | x_t] = (alpha' x_t - alpha v)/(sigma alpha' - alpha sigma'). Finite at both ends; x_t at t = 1."""
        alpha, sigma, alpha_dot, sigma_dot = self.coefficients(x_t, t)
        determinant = alpha_dot * sigma - alpha * sigma_dot
        return ((alpha_dot * x_t - alpha * v) / determinant).to(x_t.dtype)

    def score_from_velocity(self, x_t: State, v: State, t: Time) -> State:
        """Score of the density of x_t: -E[eps | x_t]/sigma = (alpha v/alpha' - x)/(sigma^2 - alpha sigma'
        sigma/alpha').

        At t = 1 it is -x_t. Raises UserError where sigma is 0 (t = 0): the velocity there is alpha' x_t
        whatever the data, so the score cannot be had from it.
        """
        sigma = self.coefficients(x_t, t)[1]
        if bool((sigma == 0).any()):
            raise UserError("score_from_velocity: sigma is 0 at a given t (t = 0); expected t > 0")
        return (-self.noise_from_velocity(x_t, v, t) / sigma).to(x_t.dtype)

    def velocity_from_score(self, x_t: State, score: State, t: Time) -> State:
        """alpha' (x_t + sigma^2 score)/alpha - sigma sigma' score.

        At t = 0 it is alpha' x_t. Raises UserError where alpha is 0 (t = 1): the score there is -x_t whatever
        the data, so the velocity cannot be had from it.
        """
        alpha, sigma, alpha_dot, sigma_dot = self.coefficients(x_t, t)
        if bool((alpha == 0).any()):
            raise UserError("velocity_from_score: alpha is 0 at a given t (t = 1); expected t < 1")
        mean = (x_t + sigma**2 * score) / alpha
        return (alpha_dot * mean - sigma_dot * sigma * score).to(x_t.dtype)

    def coefficients(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """alpha, sigma, alpha', sigma' at t, shaped to multiply a state x of shape (B, ...)."""
        t = as_time(t)
        if t.ndim > 1 or (t.ndim == 1 and t.shape[0] != x.shape[0]):
            raise ValueError(f"t has shape {tuple(t.shape)}; expected () or ({x.shape[0]},)")
        dtype = torch.promote_types(x.dtype, torch.float32)
        wide = t.to(torch.promote_types(t.dtype, dtype))
        if t.ndim == 1 or dtype != x.dtype:
            wide = wide.reshape(-1, *[1] * (x.ndim - 1))
        values = self.alpha(wide), self.sigma(wide), self.alpha_dot(wide), self.sigma_dot(wide)
        if wide.ndim == 0:
            # Scalars stay in their own precision: they do not promote the state.
            return values
        alpha, sigma, alpha_dot, sigma_dot = (value.to(x.device, dtype) for value in values)
        return alpha, sigma, alpha_dot, sigma_dot


class LinearPath(Interpolant):
    """alpha = 1 - t, sigma = t: the path of flow matching, the default here (docs/paper.md#conventions)."""

    def alpha(self, t: Time) -> Tensor:
        return 1 - as_time(t)

    def sigma(self, t: Time) -> Tensor:
        return as_time(t)

    def alpha_dot(self, t: Time) -> Tensor:
        return -torch.ones_like(as_time(t))

    def sigma_dot(self, t: Time) -> Tensor:
        return torch.ones_like(as_time(t))


class CosinePath(Interpolant):
    """alpha = cos(pi t/2), sigma = sin(pi t/2): the variance-preserving path (docs/paper.md#conventions)."""

    def alpha(self, t: Time) -> Tensor:
        # A sine of 1 - t, so that alpha is exactly 0 at t = 1 (a rounded cosine of pi/2 is not).
        return torch.sin(math.pi / 2 * (1 - as_time(t)))

    def sigma(self, t: Time) -> Tensor:
        return torch.sin(math.pi / 2 * as_time(t))

    def alpha_dot(self, t: Time) -> Tensor:
        return -math.pi / 2 * self.sigma(t)

    def sigma_dot(self, t: Time) -> Tensor:
        return math.pi / 2 * self.alpha(t)


class FunctionPath(Interpolant):
    """A path given by two differentiable functions of a time tensor, alpha and sigma; derivatives by forward mode.

    The functions act on each element by itself and are written with torch operations. Raises UserError unless
    alpha(0) = 1 and sigma(1) = 1. A function whose derivative is infinite at an end (a square root, say)
    gives an infinite velocity there: nothing is clamped.
    """

    def __init__(self, alpha: Callable[[Tensor], Tensor], sigma: Callable[[Tensor], Tensor]) -> None:
        zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        start, end = float(alpha(zero)), float(sigma(one))
        if abs(start - 1) > 1e-9 or abs(end - 1) > 1e-9:
            raise UserError(f"FunctionPath: alpha(0) = {start:g}, sigma(1) = {end:g}; expected 1 and 1")
        self._alpha, self._sigma = alpha, sigma

    def alpha(self, t: Time) -> Tensor:
        return self._alpha(as_time(t))

    def sigma(self, t: Time) -> Tensor:
        return self._sigma(as_time(t))

    def alpha_dot(self, t: Time) -> Tensor:
        return _derivative(self._alpha, as_time(t))

    def sigma_dot(self, t: Time) -> Tensor:
        return _derivative(self._sigma, as_time(t))


def _derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """Elementwise derivative: one forward-mode pass with the tangent 1."""
    return torch.func.jvp(function, (t,), (torch.ones_like(t),))[1]
