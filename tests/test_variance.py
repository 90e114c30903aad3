"""Variance of the target: against a naive float64 estimator, closed forms and the paper's values."""

from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stablevelocity.errors import UserError
from stablevelocity.gmm import GaussianMixture, paper_mixture
from stablevelocity.interpolants import CosinePath, LinearPath
from stablevelocity.variance import exact_variance_curve, gradient_variance, variance_curve

PATHS = {"linear": LinearPath(), "cosine": CosinePath()}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def naive_curve(samples, path, times, generator):
    """The paper's estimator from its formula, with all differences at hand: float64, (M, M, d)."""
    rows = []
    for t in times:
        # Noise in blocks of 64 rows of float32, as the module draws it.
        noise = torch.cat([torch.randn(part.shape, generator=generator) for part in samples.split(64)]).double()
        x_t = path.interpolate(samples, noise, t)
        gaps = x_t[:, None] - float(path.alpha(t)) * samples[None]
        weights = (-gaps.square().sum(-1) / (2 * float(path.sigma(t)) ** 2)).softmax(1)
        conditional = torch.stack([path.conditional_velocity(x_t, x.expand_as(x_t), t) for x in samples], 1)
        marginal = (weights[..., None] * conditional).sum(1)
        own = conditional[torch.arange(len(samples)), torch.arange(len(samples))]
        rows.append((own - marginal).square().sum(1))
    return torch.stack(rows)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_estimator_is_the_papers_formula(path):
    samples = paper_mixture(3).sample(150, generator()) + 5
    times = [0.05, 0.3, 0.6, 0.95, 1.0]
    curve = variance_curve(samples, path, times, generator=generator(1))
    expected = naive_curve(samples, path, times, generator(1))
    assert torch.allclose(curve.deviations.double(), expected, rtol=1e-8, atol=1e-10)
    assert torch.allclose(curve.mean, expected.mean(1))
    assert torch.allclose(curve.q15, expected.quantile(0.15, dim=1))
    assert torch.allclose(curve.q85, expected.quantile(0.85, dim=1))
    assert curve.references == 150


def test_a_finite_law_hides_the_variance_of_a_continuous_one():
    # docs/paper.md#variance: 0 / 0.8 / 16 of the empirical distribution of 10,000 points, 69 / 45 / 21 of the mixture.
    mixture = paper_mixture(100)
    samples = mixture.sample(10_000, generator(0)).float()
    times = [0.2, 0.3, 0.5, 0.7]
    finite = variance_curve(samples, times=times, queries=2000, generator=generator(1))
    exact = exact_variance_curve(mixture, times=times, generator=generator(2), queries=5000)
    # Four Monte Carlo errors (0.6 at 0.3 and 1.1 at 0.5) and what another draw of the mixture moves.
    assert finite.mean[0] < 1e-6
    assert float(finite.mean[1]) == pytest.approx(0.8, abs=0.6)
    assert float(finite.mean[2]) == pytest.approx(15.8, abs=1.2)
    # Means over five mixtures of the family, of which each lies within 2 %.
    assert exact.mean[:3].tolist() == pytest.approx([69, 45, 21.3], rel=0.04)
    # From t = 0.65 on both agree: here within their errors, 2 %.
    assert float(finite.mean[3]) == pytest.approx(float(exact.mean[3]), rel=0.04)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_exact_curve_is_the_mean_of_the_closed_form_trace(path):
    mixture = paper_mixture(10)
    times = [0.001, 0.1, 0.5, 0.9, 1.0]
    curve = exact_variance_curve(mixture, path, times, generator=generator(), queries=20_000)
    for t, mean, error in zip(times, curve.mean, curve.standard_error, strict=True):
        x_0 = mixture.sample(20_000, generator(3))
        x_t = path.interpolate(x_0, torch.randn(x_0.shape, generator=generator(4), dtype=torch.float64), t)
        truth = mixture.target_variance(x_t, t, path).mean()
        assert abs(float(mean - truth)) < 5 * float(error)


def test_the_exact_curve_of_one_gaussian_is_its_formula():
    # One mode of variance S: the trace is d (alpha' sigma - alpha sigma')^2 S/(alpha^2 S + sigma^2).
    mixture = GaussianMixture(torch.ones(1), torch.zeros(1, 4), torch.full((1, 4), 0.25))
    times = torch.tensor([1e-4, 0.2, 0.7, 1.0], dtype=torch.float64)
    curve = exact_variance_curve(mixture, LinearPath(), times, generator=generator(), queries=50_000)
    expected = 4 * 0.25 / ((1 - times) ** 2 * 0.25 + times**2)
    # A chi-square with 4 degrees of freedom over 50,000 draws: 0.3 % standard error.
    assert torch.allclose(curve.mean, expected, rtol=0.015)


def test_with_more_references_the_curve_nears_the_exact_one():
    mixture = paper_mixture(10)
    times = [0.15, 0.3]
    exact = exact_variance_curve(mixture, times=times, generator=generator(9)).mean
    shares = []
    for count in (100, 1000, 10_000):
        samples = mixture.sample(count, generator(count))
        curve = variance_curve(samples, times=times, queries=1000, generator=generator(1))
        shares.append(curve.mean / exact)
    for fewer, more in pairwise(shares):
        assert (more > fewer + 0.1).all()
    assert (shares[-1] < 1.05).all()


@pytest.mark.parametrize("rows", [1, 100, 200], ids=lambda rows: f"{rows} rows")
def test_the_memory_budget_changes_no_draw(rows):
    samples = paper_mixture(5).sample(500, generator()).float()
    limit = rows * 4 * (2 * 500 + 4 * 5)
    small = variance_curve(samples, times=[0.2, 0.6], generator=generator(1), memory_limit=limit)
    large = variance_curve(samples, times=[0.2, 0.6], generator=generator(1))
    assert torch.allclose(small.deviations, large.deviations, rtol=1e-4, atol=1e-6)


class LargestTensor(TorchDispatchMode):
    """Bytes of the largest tensor that any operation gives."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.bytes = max(self.bytes, value.numel() * value.element_size())
        return result


def test_no_tensor_is_larger_than_the_samples_and_the_budget():
    # All differences would be 2,000 x 2,000 x 300 floats: 4.8 GB; all weights 16 MB.
    samples = torch.randn(2000, 300, generator=generator())
    with LargestTensor() as seen:
        variance_curve(samples, times=[0.5], generator=generator(1), memory_limit=2**21)
    assert seen.bytes <= max(2**21, samples.numel() * 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_curve_of_the_cpu_from_the_same_draws():
    samples = paper_mixture(100).sample(2000, generator()).float()
    curves = [variance_curve(x, times=[0.3, 0.7], generator=generator(1)) for x in (samples, samples.cuda())]
    assert torch.allclose(curves[0].deviations, curves[1].deviations, rtol=1e-3, atol=1e-4)


def test_float32_is_as_good_as_float64_far_from_the_origin():
    # Latents of d = 4096 around 20: without centring the logits lose 4 digits more.
    samples = torch.randn(200, 4096, generator=generator(), dtype=torch.float64) * 0.8
    samples[100:] = samples[:100] + 0.05 * torch.randn(100, 4096, generator=generator(1), dtype=torch.float64)
    samples += 20
    curves = [variance_curve(s, times=[0.5, 0.8, 0.95], generator=generator(2)) for s in (samples.float(), samples)]
    means = [curve.mean for curve in curves]
    # float32 storage of values near 20 moves each point by 1e-6; the curve by no more than 1e-3 of itself.
    assert torch.allclose(means[0], means[1], rtol=1e-3)
    assert (means[1] > 1).all()


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_other_fields_are_the_velocity_rescaled(path):
    mixture = paper_mixture(4)
    times = [0.3, 0.7]
    samples = mixture.sample(100, generator())
    # Field(x_t | x_0) at a fixed x_t is affine in x_0: its slope, by difference, is the factor.
    x_t = torch.zeros(2, 4, dtype=torch.float64)
    x_0 = torch.tensor([[0.0] * 4, [1.0] + [0.0] * 3], dtype=torch.float64)
    for t, field in ((t, field) for t in times for field in ("score", "noise", "data")):
        noise = (x_t - float(path.alpha(t)) * x_0) / float(path.sigma(t))
        value = {"score": -noise / float(path.sigma(t)), "noise": noise, "data": x_0}[field]
        velocity = path.conditional_velocity(x_t, x_0, t)
        ratio = ((value[1] - value[0]).norm() / (velocity[1] - velocity[0]).norm()) ** 2
        one = variance_curve(samples, path, [t], field, generator=generator(1)).mean
        other = variance_curve(samples, path, [t], "velocity", generator=generator(1)).mean
        assert torch.allclose(one, ratio * other, rtol=1e-9)


def test_identical_points_have_no_variance():
    curve = variance_curve(torch.ones(10, 3), times=[0.01, 0.5, 1.0], generator=generator())
    assert curve.mean.max() < 1e-9


def test_images_are_flattened_and_the_table_names_its_columns():
    samples = torch.randn(20, 3, 2, 2, generator=generator())
    heard = []
    curve = variance_curve(
        samples, times=[0.2, 0.9], queries=7, generator=generator(), progress=lambda *a: heard.append(a)
    )
    assert curve.deviations.shape == (2, 7)
    table = curve.table()
    assert list(table) == ["t", "mean", "q15", "q85", "standard_error", "dimension", "references"]
    assert table.dimension.tolist() == [12, 12]
    assert table.references.tolist() == [20, 20]
    assert heard[-1] == (14, 14)


@pytest.mark.parametrize("times", [[], [0.0, 0.5], [0.5, 0.2], [1.1]])
def test_bad_times_are_refused(times):
    with pytest.raises(UserError, match="times"):
        variance_curve(torch.ones(3, 2), times=times)


def test_gradient_variance_of_a_least_squares_loss_is_its_closed_form():
    # loss = 0.5 ||w - x||^2 averaged over B draws x ~ N(0, s^2): the gradient is w - mean(x).
    weight = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    draws, batch, scale = generator(5), 8, 0.7

    def loss():
        x = scale * torch.randn(batch, 3, generator=draws)
        return 0.5 * (weight - x).square().sum(1).mean()

    result = gradient_variance(loss, [weight], batches=4000)
    truth = 3 * scale**2 / batch
    # Chi-square with 12,000 degrees of freedom: 1.3 % standard error.
    assert result.trace == pytest.approx(truth, rel=0.05)
    assert result.per_parameter == pytest.approx(truth / 3, rel=0.05)
    assert result.signal == pytest.approx(5.25, rel=0.02)


def test_gradient_variance_agrees_with_the_covariance_of_the_stacked_gradients():
    network = torch.nn.Linear(4, 2)
    inputs = torch.randn(12, 5, 4, generator=generator())
    batches = iter(inputs)
    result = gradient_variance(lambda: network(next(batches)).square().mean(), list(network.parameters()), batches=12)
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(network(x).square().mean(), list(network.parameters()))])
        for x in inputs
    ]
    assert result.trace == pytest.approx(float(torch.stack(rows).double().var(0).sum()), rel=1e-5)


def test_one_batch_has_no_variance_to_report():
    with pytest.raises(UserError, match="batches"):
        gradient_variance(lambda: torch.zeros(()), [torch.zeros(1)], batches=1)
