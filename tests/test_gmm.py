"""Gaussian mixtures: closed forms against torch.distributions, finite differences, a conservation law, Monte Carlo."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from stablevelocity.errors import UserError
from stablevelocity.gmm import GaussianMixture, paper_mixture
from stablevelocity.interpolants import CosinePath, FunctionPath, LinearPath

PATHS = [LinearPath(), CosinePath(), FunctionPath(lambda t: 1 - t**2, lambda t: t * (2 - t))]
IDS = ["linear", "cosine", "function"]


def small_mixture() -> GaussianMixture:
    return GaussianMixture(
        weights=torch.tensor([0.2, 0.5, 0.3]),
        means=torch.tensor([[-1.0, 0.5], [0.7, 0.2], [0.1, -0.9]]),
        variances=torch.tensor([[0.05, 0.2], [0.1, 0.02], [0.3, 0.04]]),
    )


def states(mixture: GaussianMixture, count: int, t: float, path, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x0 = mixture.sample(count, generator)
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=generator)
    return x0, noise, path.interpolate(x0, noise, t)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_log_prob_is_that_of_the_convolved_mixture(path):
    mixture, t = small_mixture(), 0.37
    alpha, sigma = path.alpha(t), path.sigma(t)
    deviations = (alpha**2 * mixture.variances + sigma**2).sqrt()
    other = MixtureSameFamily(Categorical(mixture.weights), Independent(Normal(alpha * mixture.means, deviations), 1))
    x = 3 * torch.randn(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(mixture.log_prob(x, t, path), other.log_prob(x), rtol=1e-12, atol=1e-12)
    assert torch.allclose(mixture.log_prob(x, t, path).exp(), other.log_prob(x).exp(), rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_score_is_the_finite_difference_of_the_log_density(path):
    mixture, t, step = small_mixture(), 0.4, 1e-5
    _, _, x = states(mixture, 40, t, path)
    for axis in range(2):
        shift = torch.zeros(2, dtype=torch.float64)
        shift[axis] = step
        slope = (mixture.log_prob(x + shift, t, path) - mixture.log_prob(x - shift, t, path)) / (2 * step)
        # Rounding of the log density (1e-15 of about 10) over the step.
        assert torch.allclose(mixture.score(x, t, path)[:, axis], slope, atol=1e-8)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_velocity_conserves_probability(path):
    # Continuity: d/dt log p + v . grad log p + div v = 0, everything but v by finite differences of log p and v.
    mixture, t, step = small_mixture(), 0.45, 1e-5
    _, _, x = states(mixture, 60, t, path)
    rate = (mixture.log_prob(x, t + step, path) - mixture.log_prob(x, t - step, path)) / (2 * step)
    transport, divergence = torch.zeros_like(rate), torch.zeros_like(rate)
    velocity = mixture.velocity(x, t, path)
    for axis in range(2):
        shift = torch.zeros(2, dtype=torch.float64)
        shift[axis] = step
        slope = (mixture.log_prob(x + shift, t, path) - mixture.log_prob(x - shift, t, path)) / (2 * step)
        transport += velocity[:, axis] * slope
        spread = mixture.velocity(x + shift, t, path) - mixture.velocity(x - shift, t, path)
        divergence += spread[:, axis] / (2 * step)
    assert torch.allclose(rate + transport + divergence, torch.zeros_like(rate), atol=1e-7)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_posterior_mean_is_the_importance_weighted_mean_of_samples(path):
    mixture, t, count = small_mixture(), 0.6, 400_000
    x0 = mixture.sample(count, torch.Generator().manual_seed(3))
    _, _, x = states(mixture, 5, t, path, seed=4)
    square = torch.cdist(x, path.alpha(t) * x0).square()
    weights = (-square / (2 * path.sigma(t) ** 2)).softmax(-1)
    estimate = weights @ x0
    # Standard error of a self-normalised mean, coordinate by coordinate; five of them.
    error = (weights.square() @ x0.square() - 2 * estimate * (weights.square() @ x0)).add(
        estimate.square() * weights.square().sum(-1, keepdim=True)
    )
    assert ((estimate - mixture.posterior_mean(x, t, path)).abs() < 5 * error.sqrt()).all()


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_velocity_posterior_mean_and_score_tell_the_same(path):
    mixture, t = paper_mixture(10), 0.3
    _, _, x = states(mixture, 50, t, path)
    velocity, mean = mixture.velocity(x, t, path), mixture.posterior_mean(x, t, path)
    assert torch.allclose(path.velocity_from_posterior_mean(x, mean, t), velocity, rtol=1e-11, atol=1e-11)
    assert torch.allclose(path.score_from_velocity(x, velocity, t), mixture.score(x, t, path), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_closed_forms_hold_at_both_ends(path, t):
    mixture = small_mixture()
    _, _, x = states(mixture, 30, t, path)
    near = mixture.velocity(x, 1e-8 if t == 0 else 1 - 1e-8, path)
    # Continuous in t: a step of 1e-8 moves it by about 1e-8/variance.
    assert torch.allclose(mixture.velocity(x, t, path), near, atol=1e-5)
    if t == 0:
        assert torch.allclose(mixture.posterior_mean(x, t, path), x, atol=1e-12)
    else:
        assert torch.allclose(mixture.score(x, t, path), -x, atol=1e-12)


def test_samples_have_the_mixture_mean_and_covariance():
    mixture, count = small_mixture(), 200_000
    x = mixture.sample(count, torch.Generator().manual_seed(5))
    mean = mixture.weights @ mixture.means
    second = torch.einsum("k,ki,kj->ij", mixture.weights, mixture.means, mixture.means)
    covariance = second + torch.diag(mixture.weights @ mixture.variances) - torch.outer(mean, mean)
    # Five standard errors; the fourth moments are of order 1.
    assert torch.allclose(x.mean(0), mean, atol=5 / count**0.5)
    assert torch.allclose(x.T.cov(), covariance, atol=5 / count**0.5)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
@pytest.mark.parametrize("t", [0.1, 0.5, 0.95])
def test_target_variance_is_the_spread_of_conditional_velocities(path, t):
    mixture = paper_mixture(10)
    x0, noise, x = states(mixture, 40_000, t, path)
    spread = (path.velocity_from_noise(x0, noise, t) - mixture.velocity(x, t, path)).square().sum(-1)
    difference = spread - mixture.target_variance(x, t, path)
    assert difference.mean().abs() < 5 * difference.std() / len(x) ** 0.5
    assert 5 * difference.std() / len(x) ** 0.5 < 0.02 * spread.mean()


def test_target_variance_gives_the_exact_values_of_the_published_mixture_sizes():
    # docs/paper.md#variance: 69, 45 and 21 at t = 0.2, 0.3, 0.5 in dimension 100 (21.3 before rounding: the mean over
    # five mixtures of the family, of which each lies within 2 %).
    mixture, path = paper_mixture(100), LinearPath()
    for t, value in ((0.2, 69.0), (0.3, 45.0), (0.5, 21.3)):
        _, _, x = states(mixture, 4000, t, path)
        assert mixture.target_variance(x, t, path).mean().item() == pytest.approx(value, rel=0.03)


def test_one_time_per_sample_is_the_same_as_sample_by_sample():
    mixture, path = small_mixture(), CosinePath()
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(10, 2, dtype=torch.float64, generator=generator)
    t = torch.rand(10, dtype=torch.float64, generator=generator)
    for method in (
        mixture.velocity,
        mixture.score,
        mixture.log_prob,
        mixture.target_variance,
        mixture.responsibilities,
    ):
        apart = torch.cat([method(x[i : i + 1], float(t[i]), path) for i in range(10)])
        assert torch.allclose(method(x, t, path), apart, rtol=1e-12, atol=1e-12)


def test_a_batch_that_is_cut_into_chunks_is_its_two_halves():
    # 2^24 numbers of a chunk are 167 rows of 100 components in 1,000 dimensions.
    mixture = paper_mixture(1000)
    x, t = mixture.sample(240, torch.Generator().manual_seed(0)), torch.linspace(0.1, 0.9, 240, dtype=torch.float64)
    halves = [mixture.velocity(x[rows], t[rows]) for rows in (slice(0, 120), slice(120, 240))]
    assert torch.allclose(mixture.velocity(x, t), torch.cat(halves), rtol=1e-12, atol=1e-12)


def test_results_keep_the_dtype_of_the_states():
    x = small_mixture().sample(4).float()
    assert small_mixture().velocity(x, 0.5).dtype == torch.float32


def test_paper_mixture_is_within_its_ranges_and_fixed_by_its_seed():
    mixture, again, other = paper_mixture(10), paper_mixture(10), paper_mixture(10, seed=1)
    assert mixture.means.shape == (100, 10)
    assert torch.equal(mixture.means, again.means)
    assert not torch.equal(mixture.means, other.means)
    assert -1 <= mixture.means.min() < -0.9
    assert 0.9 < mixture.means.max() <= 1
    assert mixture.variances.min() >= 0.01
    assert mixture.variances.max() <= 0.1
    assert mixture.weights.sum().item() == pytest.approx(1)
    assert mixture.weights.max() / mixture.weights.min() <= 10


@pytest.mark.parametrize(
    ("weights", "means", "variances"),
    [
        (torch.ones(2), torch.zeros(3, 2), torch.ones(3, 2)),
        (torch.ones(3), torch.zeros(3, 2), torch.ones(2, 2)),
        (torch.tensor([1.0, 0.0]), torch.zeros(2, 2), torch.ones(2, 2)),
        (torch.ones(2), torch.zeros(2, 2), -torch.ones(2, 2)),
    ],
)
def test_what_is_no_mixture_is_refused(weights, means, variances):
    # jaxtyping sees wrong shapes first under the import hook; without it the class itself refuses.
    with pytest.raises((UserError, TypeCheckError)):
        GaussianMixture(weights, means, variances)


def test_states_of_another_dimension_are_refused():
    with pytest.raises(ValueError, match=r"expected \(N, 2\)"):
        small_mixture().velocity(torch.zeros(3, 4), 0.5)
