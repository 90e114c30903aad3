"""Gaussian mixtures: data distributions whose marginal velocity is known in closed form, the ground truth of every
estimator.

If x_0 is drawn from sum_k w_k N(mu_k, S_k) with diagonal S_k, then x_t = alpha x_0 + sigma eps follows
sum_k w_k N(alpha mu_k, V_k) with V_k = alpha^2 S_k + sigma^2. Given the component, everything is affine in
x_t, so each quantity below is a mean of affine functions under the responsibilities r_k(x_t) (docs/paper.md#variance).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.interpolants import Interpolant, LinearPath, Time, as_time

States: TypeAlias = Float[Tensor, "count dimension"]

# Entries of the largest temporary when every sample has its own time (float64: 128 MB).
_CHUNK_ENTRIES = 2**24


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Weights (K,), means (K, d) and diagonal variances (K, d); kept and computed in float64.

    `x_t` is (N, d) of any float dtype, results have its dtype; `t` is a number or (N,). All quantities hold
    on the closed interval [0, 1], ends included, because V_k stays positive: nothing is divided by sigma.
    Raises UserError on shapes that disagree, on weights that are not positive and on variances that are not.
    """

    weights: Float[Tensor, " components"]
    means: Float[Tensor, "components dimension"]
    variances: Float[Tensor, "components dimension"]

    def __post_init__(self) -> None:
        for name in ("weights", "means", "variances"):
            object.__setattr__(self, name, getattr(self, name).detach().to(torch.float64))
        if self.means.shape != self.variances.shape or self.weights.shape != self.means.shape[:1]:
            shapes = [tuple(value.shape) for value in (self.weights, self.means, self.variances)]
            raise UserError(f"GaussianMixture: shapes {shapes}; expected (K,), (K, d), (K, d)")
        if bool((self.weights <= 0).any()) or bool((self.variances <= 0).any()):
            raise UserError("GaussianMixture: a weight or variance is not positive; expected all positive")
        object.__setattr__(self, "weights", self.weights / self.weights.sum())

    @property
    def dimension(self) -> int:
        return self.means.shape[1]

    def to(self, device: torch.device | str) -> "GaussianMixture":
        """The same mixture on another device."""
        return GaussianMixture(self.weights.to(device), self.means.to(device), self.variances.to(device))

    def sample(self, count: int, generator: torch.Generator | None = None) -> States:
        """Independent draws, float64."""
        component = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.dimension, dtype=torch.float64, device=self.means.device, generator=generator)
        return self.means[component] + self.variances[component].sqrt() * noise

    def log_prob(self, x_t: States, t: Time = 0.0, path: Interpolant | None = None) -> Float[Tensor, " count"]:
        """Log density of x_t at time t (the data distribution by default), in nats."""
        parts = [part.log_joint.logsumexp(-1).flatten() for part in self._parts(x_t, t, path)]
        return torch.cat(parts).to(x_t.dtype)

    def responsibilities(
        self, x_t: States, t: Time, path: Interpolant | None = None
    ) -> Float[Tensor, "count components"]:
        """r_k(x_t): probability that x_t came from component k."""
        parts = [part.log_joint.softmax(-1).flatten(0, 1) for part in self._parts(x_t, t, path)]
        return torch.cat(parts).to(x_t.dtype)

    def posterior_mean(self, x_t: States, t: Time, path: Interpolant | None = None) -> States:
        """E[x_0 | x_t]: in component k, mu_k + (alpha S_k/V_k)(x_t - alpha mu_k)."""
        parts = [
            part.mean_of(self.means, part.alpha * self.variances / part.variances) for part in self._parts(x_t, t, path)
        ]
        return torch.cat(parts).to(x_t.dtype)

    def velocity(self, x_t: States, t: Time, path: Interpolant | None = None) -> States:
        """Marginal velocity v_t(x_t): in component k, alpha' mu_k + (V_k'/(2 V_k))(x_t - alpha mu_k)."""
        parts = [part.mean_of(*part.velocity_terms(self)) for part in self._parts(x_t, t, path)]
        return torch.cat(parts).to(x_t.dtype)

    def score(self, x_t: States, t: Time, path: Interpolant | None = None) -> States:
        """Gradient of `log_prob`: in component k, -(x_t - alpha mu_k)/V_k."""
        parts = [part.mean_of(torch.zeros_like(self.means), -1 / part.variances) for part in self._parts(x_t, t, path)]
        return torch.cat(parts).to(x_t.dtype)

    def target_variance(self, x_t: States, t: Time, path: Interpolant | None = None) -> Float[Tensor, " count"]:
        """Trace of the covariance of the conditional velocity v_t(x_t | x_0) given x_t.

        Its mean over x_t is V_CFM(t), exactly (docs/paper.md#variance). By the law of total variance: within component
        k the trace of (alpha' sigma - alpha sigma')^2 S_k/V_k, plus the spread of the components' velocities.
        """
        parts = [part.velocity_variance(self).flatten() for part in self._parts(x_t, t, path)]
        return torch.cat(parts).to(x_t.dtype)

    def _parts(self, x_t: Tensor, t: Time, path: Interpolant | None) -> Iterator["_Marginal"]:
        """The batch cut so that no temporary is large; one part when the whole batch shares its time."""
        path = path or LinearPath()
        if x_t.ndim != 2 or x_t.shape[1] != self.dimension:
            raise ValueError(f"x_t has shape {tuple(x_t.shape)}; expected (N, {self.dimension})")
        x, t = x_t.to(torch.float64), as_time(t).to(torch.float64)
        if t.ndim == 0:
            yield _Marginal.of(self, x[None], t.reshape(1), path)
            return
        if t.shape != x.shape[:1]:
            raise ValueError(f"t has shape {tuple(t.shape)}; expected () or ({x.shape[0]},)")
        rows = max(1, _CHUNK_ENTRIES // self.means.numel())
        for x_rows, t_rows in zip(x.split(rows), t.split(rows), strict=True):
            yield _Marginal.of(self, x_rows[:, None], t_rows, path)


@dataclass(frozen=True, eq=False)
class _Marginal:
    """The distribution of x_t at T times, for states x (T, N, d): one time for many states, or one state per time.

    alpha, sigma and their derivatives are (T, 1, 1), centres and variances (T, K, d), log_joint (T, N, K) is
    log w_k N(x; k).
    """

    x: Tensor
    alpha: Tensor
    sigma: Tensor
    alpha_dot: Tensor
    sigma_dot: Tensor
    centres: Tensor
    variances: Tensor
    log_joint: Tensor

    @classmethod
    def of(cls, mixture: GaussianMixture, x: Tensor, t: Tensor, path: Interpolant) -> "_Marginal":
        times = t.to(mixture.means.device).reshape(-1, 1, 1)
        alpha, sigma = path.alpha(times), path.sigma(times)
        centres = alpha * mixture.means
        variances = alpha**2 * mixture.variances + sigma**2
        precision = 1 / variances
        # The square ||x - centre||^2 weighted by the precision, opened so that products of matrices do the
        # work.
        square = x**2 @ precision.mT - 2 * x @ (centres * precision).mT + (centres**2 * precision).sum(-1)[:, None, :]
        log_scale = variances.log().sum(-1)[:, None, :] + mixture.dimension * math.log(2 * math.pi)
        log_joint = mixture.weights.log() - (square + log_scale) / 2
        return cls(x, alpha, sigma, path.alpha_dot(times), path.sigma_dot(times), centres, variances, log_joint)

    def mean_of(self, value: Tensor, slope: Tensor) -> Tensor:
        """Mean under the responsibilities of value_k + slope_k (x - centre_k), flat over states: (T N, d)."""
        weights = self.log_joint.softmax(-1)
        constant = (value - slope * self.centres).expand_as(self.centres)
        return (weights @ constant + (weights @ slope.expand_as(self.centres)) * self.x).flatten(0, 1)

    def velocity_terms(self, mixture: GaussianMixture) -> tuple[Tensor, Tensor]:
        """Value at the centre and slope of the velocity within each component."""
        slope = self.alpha * self.alpha_dot * mixture.variances + self.sigma * self.sigma_dot
        return self.alpha_dot * mixture.means, slope / self.variances

    def velocity_variance(self, mixture: GaussianMixture) -> Tensor:
        """Trace of the covariance of the conditional velocity given x: (T, N)."""
        determinant = self.alpha_dot * self.sigma - self.alpha * self.sigma_dot
        within = (determinant**2 * mixture.variances / self.variances).sum(-1)
        value, slope = self.velocity_terms(mixture)
        constant = value - slope * self.centres
        weights = self.log_joint.softmax(-1)
        square = (constant**2).sum(-1)[:, None, :] + 2 * self.x @ (constant * slope).mT + self.x**2 @ (slope**2).mT
        mean = weights @ constant + (weights @ slope) * self.x
        between = (weights * square).sum(-1) - (mean**2).sum(-1)
        return (weights * within[:, None, :]).sum(-1) + between.clamp_min(0.0)


def paper_mixture(dimension: int, seed: int = 42, components: int = 100) -> GaussianMixture:
    """The mixtures of the paper's figure 1 and toy experiment (docs/paper.md#variance and docs/paper.md#toy).

    Means U(-1, 1), diagonal variances U(0.01, 0.1), weights U(0.1, 1) normalised; 100 components.
    The same `seed` gives the same mixture on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    means = torch.rand(components, dimension, dtype=torch.float64, generator=generator) * 2 - 1
    variances = torch.rand(components, dimension, dtype=torch.float64, generator=generator) * 0.09 + 0.01
    weights = torch.rand(components, dtype=torch.float64, generator=generator) * 0.9 + 0.1
    return GaussianMixture(weights, means, variances)
