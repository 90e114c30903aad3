"""Paths: derivatives against autograd, conversions against the equations they invert, behaviour at both ends."""

import pytest
import torch

from stablevelocity.errors import UserError
from stablevelocity.gmm import paper_mixture
from stablevelocity.interpolants import CosinePath, FunctionPath, LinearPath

PATHS = {
    "linear": LinearPath(),
    "cosine": CosinePath(),
    "function": FunctionPath(lambda t: (1 - t) * (1 + t / 2), lambda t: torch.sin(torch.pi / 2 * t) ** 1.5),
}
INSIDE = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)


@pytest.fixture(params=PATHS, name="path")
def _path(request):
    return PATHS[request.param]


@pytest.fixture(name="pair")
def _pair():
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, len(INSIDE), 3, 4, dtype=torch.float64, generator=generator)
    return x0, noise


def test_derivatives_are_those_of_autograd(path):
    for value, derivative in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)):
        t = INSIDE.clone().requires_grad_()
        (truth,) = torch.autograd.grad(value(t).sum(), t)
        assert torch.allclose(derivative(INSIDE), truth, rtol=1e-13, atol=1e-13)


def test_path_starts_at_data_and_ends_at_noise_exactly(path, pair):
    x0, noise = pair
    assert torch.equal(path.interpolate(x0, noise, 0.0), x0)
    assert torch.equal(path.interpolate(x0, noise, torch.zeros(len(x0))), x0)
    assert torch.equal(path.interpolate(x0, noise, 1), noise)


def test_function_path_of_the_cosine_functions_is_the_cosine_path():
    cosine = CosinePath()
    same = FunctionPath(lambda t: torch.cos(torch.pi / 2 * t), lambda t: torch.sin(torch.pi / 2 * t))
    for name in ("alpha", "sigma", "alpha_dot", "sigma_dot"):
        assert torch.allclose(getattr(same, name)(INSIDE), getattr(cosine, name)(INSIDE), rtol=0, atol=1e-15)


def test_velocity_is_the_time_derivative_of_the_interpolation(path, pair):
    x0, noise = pair
    step = 1e-6
    later, sooner = (path.interpolate(x0, noise, INSIDE + s) for s in (step, -step))
    # Central differences: truncation ~ step^2 v''', rounding ~ 1e-16/step.
    truth = (later - sooner) / (2 * step)
    assert torch.allclose(path.velocity_from_noise(x0, noise, INSIDE), truth, atol=1e-8)


def test_conversions_round_trip_away_from_the_ends(path, pair):
    x0, noise = pair
    x_t, v = path.interpolate(x0, noise, INSIDE), path.velocity_from_noise(x0, noise, INSIDE)
    close = {"rtol": 1e-12, "atol": 1e-12}
    assert torch.allclose(path.conditional_velocity(x_t, x0, INSIDE), v, **close)
    assert torch.allclose(path.posterior_mean_from_velocity(x_t, v, INSIDE), x0, **close)
    assert torch.allclose(path.noise_from_velocity(x_t, v, INSIDE), noise, **close)
    mean = path.posterior_mean_from_velocity(x_t, v, INSIDE)
    assert torch.allclose(path.velocity_from_posterior_mean(x_t, mean, INSIDE), v, **close)
    score = path.score_from_velocity(x_t, v, INSIDE)
    assert torch.allclose(path.velocity_from_score(x_t, score, INSIDE), v, rtol=1e-12, atol=5e-12)


def test_formulas_are_the_published_ones(path, pair):
    x_t, v = pair
    t = INSIDE[:, None, None]
    alpha, sigma, alpha_dot, sigma_dot = path.alpha(t), path.sigma(t), path.alpha_dot(t), path.sigma_dot(t)
    # Conditional velocity and score as docs/paper.md#conventions has them.
    velocity = sigma_dot / sigma * (x_t - alpha * v) + alpha_dot * v
    assert torch.allclose(path.conditional_velocity(x_t, v, INSIDE), velocity, rtol=1e-12, atol=1e-12)
    score = (alpha * v / alpha_dot - x_t) / (sigma**2 - alpha * sigma_dot * sigma / alpha_dot)
    assert torch.allclose(path.score_from_velocity(x_t, v, INSIDE), score, rtol=1e-10, atol=1e-10)


def test_linear_conditional_velocity_is_noise_minus_data(pair):
    x0, noise = pair
    assert torch.equal(LinearPath().velocity_from_noise(x0, noise, INSIDE), noise - x0)


def test_at_the_data_end_the_velocity_is_the_limit_of_the_marginal_one():
    # A smooth distribution: v_t(x) is continuous at t = 0, and its limit is alpha'_0 x.
    mixture = paper_mixture(3)
    x = mixture.sample(50, torch.Generator().manual_seed(1))
    for path in (LinearPath(), CosinePath()):
        at_end = path.velocity_from_posterior_mean(x, mixture.posterior_mean(x, 0.0, path), 0.0)
        assert torch.isfinite(at_end).all()
        # |v_h - v_0| is of order h |v'|, with |v'| about 1/variance = 100 here.
        assert torch.allclose(at_end, mixture.velocity(x, 1e-7, path), atol=1e-3)
        assert torch.allclose(path.conditional_velocity(x, x, 0.0), path.alpha_dot(0.0) * x)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_conversions_are_finite_at_both_ends(name, pair):
    path = PATHS[name]
    x0, noise = pair
    for t in (0.0, 1.0):
        v = path.velocity_from_noise(x0, noise, t)
        x_t = path.interpolate(x0, noise, t)
        assert torch.allclose(path.posterior_mean_from_velocity(x_t, v, t), x0, atol=1e-12)
        assert torch.allclose(path.noise_from_velocity(x_t, v, t), noise, atol=1e-12)
        assert torch.isfinite(path.velocity_from_posterior_mean(x_t, x0, t)).all()
    assert torch.allclose(path.score_from_velocity(noise, v, 1.0), -noise)
    assert torch.allclose(path.velocity_from_score(x0, noise, 0.0), path.alpha_dot(0.0) * x0)


def test_what_cannot_be_had_at_an_end_is_refused(pair):
    x, v = pair
    times = INSIDE.clone()
    times[3] = 0
    for t in (0.0, times):
        with pytest.raises(UserError, match="t > 0"):
            LinearPath().score_from_velocity(x, v, t)
    for path in (LinearPath(), CosinePath()):
        with pytest.raises(UserError, match="t < 1"):
            path.velocity_from_score(x, v, 1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_number_a_scalar_and_a_batch_of_times_agree_and_keep_the_dtype(path, dtype):
    generator = torch.Generator().manual_seed(2)
    x0, noise = torch.randn(2, 5, 7, dtype=torch.float64, generator=generator).to(dtype)
    truth = path.interpolate(x0.double(), noise.double(), 0.3)
    for t in (0.3, torch.tensor(0.3, dtype=torch.float64), torch.full((5,), 0.3, dtype=torch.float64)):
        result = path.interpolate(x0, noise, t)
        assert result.dtype == dtype
        # One rounding of coefficients, products and sum each, in the dtype of the state.
        assert torch.allclose(result.double(), truth, rtol=0, atol=8 * torch.finfo(dtype).eps)


def test_times_of_another_batch_size_are_refused(pair):
    with pytest.raises(ValueError, match=r"expected \(\) or \(25,\)"):
        LinearPath().interpolate(*pair, torch.rand(3))


def test_function_path_that_is_no_path_is_refused():
    with pytest.raises(UserError, match=r"alpha\(0\) = 2"):
        FunctionPath(lambda t: 2 - t, lambda t: t)
