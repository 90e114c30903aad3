"""StableVS against closed forms: one data point (exact for any step), a Gaussian mixture, and Euler."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from stablevelocity.errors import UserError
from stablevelocity.gmm import GaussianMixture
from stablevelocity.interpolants import CosinePath, FunctionPath, LinearPath
from stablevelocity.sampling import euler, heun, stablevs, thin_times, uniform_times
from stablevelocity.sampling.stablevs import step_weights

PATHS = {
    "linear": LinearPath(),
    "cosine": CosinePath(),
    "user's": FunctionPath(lambda t: 1 - t**2, lambda t: t),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize(("t", "tau"), [(0.85, 0.8), (0.85, 0.1), (0.5, 0.0), (1.0, 0.3)])
def test_for_one_data_point_a_step_of_any_length_is_exact(path, t, tau):
    x_0, noise = randn(5, 3, seed=1), randn(5, 3, seed=2)
    start = path.interpolate(x_0, noise, t)

    def velocity(x, t):
        return path.conditional_velocity(x, x_0, t)

    times = torch.tensor([t, tau], dtype=torch.float64)
    end = stablevs(velocity, start, times, xi=1.0, path=path)
    if t == 1.0:  # the switch looks at the current time: a step that starts at xi is the base solver's
        weights = step_weights(path, t, tau)
        end = weights.state * start + weights.velocity * velocity(start, t)
    assert torch.allclose(end, path.interpolate(x_0, noise, tau), atol=1e-13, rtol=0)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_ode_form_is_the_papers_with_the_integral_done_numerically(path):
    t, tau = 0.8, 0.3
    s = torch.linspace(t, tau, 20_001, dtype=torch.float64)
    alpha, sigma, sigma_dot = path.alpha(s), path.sigma(s), path.sigma_dot(s)
    slope = path.alpha_dot(s) - alpha * sigma_dot / sigma
    psi = torch.trapezoid(slope / sigma, s) / slope[0]
    weights = step_weights(path, t, tau)
    # The trapezoid rule at this spacing is good to 1e-8.
    assert weights.velocity == pytest.approx(float(sigma[-1] * psi), abs=1e-7)
    expected = sigma[-1] * (1 / sigma[0] - sigma_dot[0] / sigma[0] * psi)
    assert weights.state == pytest.approx(float(expected), abs=1e-7)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("noise_factor", [0.3, 1.0])
def test_the_sde_form_has_the_right_mean_and_variance(path, noise_factor):
    # Data is one point c, so x_tau must be N(alpha c, sigma^2) if x_t was drawn from its distribution.
    count, c, t, tau = 40_000, 1.3, 0.8, 0.4
    point = torch.full((count, 1), c, dtype=torch.float64)
    start = path.interpolate(point, randn(count, 1), t)
    times = torch.tensor([t, tau], dtype=torch.float64)
    end = stablevs(
        lambda x, t: path.conditional_velocity(x, point, t),
        start,
        times,
        xi=0.85,
        path=path,
        noise_factor=noise_factor,
        generator=generator(3),
    )
    sigma = float(path.sigma(tau))
    # Four standard errors of the mean and of the variance.
    assert float(end.mean()) == pytest.approx(float(path.alpha(tau)) * c, abs=4 * sigma / count**0.5)
    assert float(end.var()) == pytest.approx(sigma**2, abs=4 * sigma**2 * (2 / count) ** 0.5)
    kept = float(torch.corrcoef(torch.cat([start, end], 1).T)[0, 1])
    # What is left of the old noise: sqrt(1 - f^2) of it; nothing at f = 1.
    assert kept == pytest.approx(math.sqrt(1 - noise_factor**2), abs=4 / count**0.5)


def test_full_noise_is_fresh_noise_around_the_posterior_mean():
    path = CosinePath()
    x, v = randn(4, 3), randn(4, 3, seed=1)
    weights = step_weights(path, 0.7, 0.2, noise_factor=1.0)
    mean = path.posterior_mean_from_velocity(x, v, 0.7)
    assert torch.allclose(weights.state * x + weights.velocity * v, float(path.alpha(0.2)) * mean, atol=1e-13)
    assert weights.noise == float(path.sigma(0.2))


def mixture(variance: float = 0.02) -> GaussianMixture:
    means = torch.rand(5, 8, generator=generator(4), dtype=torch.float64) * 4 - 2
    return GaussianMixture(torch.ones(5), means, torch.full((5, 8), variance))


def test_on_the_linear_path_without_noise_it_is_euler():
    gmm, x, times = mixture(), randn(16, 8), uniform_times(20)
    ours = stablevs(gmm.velocity, x, times, xi=0.85, path=LinearPath())
    assert torch.equal(ours, euler(gmm.velocity, x, times))
    for t, tau in pairwise(times[:-1].tolist()):
        assert step_weights(LinearPath(), t, tau) == pytest.approx((1, tau - t, 0), abs=1e-15)


def test_on_the_cosine_path_it_differs_from_euler_and_beats_it_below_xi():
    # Narrow modes (standard deviation 0.01): below xi one mode dominates and looks like a point. With broad
    # modes (0.07 and up) the two are within 6 %, measured: both then miss the flow within the mode.
    path, gmm, xi = CosinePath(), mixture(1e-4), 0.5

    def velocity(x, t):
        return gmm.velocity(x, t, path)

    x_0 = gmm.sample(64, generator(5))
    start = path.interpolate(x_0, randn(64, 8, seed=6), xi - 1e-9)
    fine = (xi - 1e-9) * uniform_times(2000)
    truth = heun(velocity, start, fine)
    coarse = (xi - 1e-9) * uniform_times(3)
    errors = {
        "euler": float((euler(velocity, start, coarse) - truth).square().mean().sqrt()),
        "stablevs": float((stablevs(velocity, start, coarse, xi=xi, path=path) - truth).square().mean().sqrt()),
    }
    assert errors["stablevs"] < 0.5 * errors["euler"]


def test_above_xi_the_base_solver_runs_unchanged():
    path, gmm, x = CosinePath(), mixture(), randn(6, 8)
    times = uniform_times(10)

    def velocity(x, t):
        return gmm.velocity(x, t, path)

    assert torch.equal(stablevs(velocity, x, times, xi=0.0, path=path, base=heun), heun(velocity, x, times))
    # Times 1.0 .. 0.6 start base steps, down to 0.5: the state handed over is the base solver's.
    seen = {}

    def recording(x, t):
        seen[t] = x.clone()  # the last call at t: Heun's corrector asks once before
        return velocity(x, t)

    stablevs(recording, x, times, xi=0.6, path=path, base=partial(heun))
    assert torch.equal(seen[0.5], heun(velocity, x, times[:6]))


def test_one_network_call_a_step_below_xi_and_its_dtype_is_kept():
    calls = []

    def velocity(x, t):
        calls.append((t, x.dtype))
        return -x

    end = stablevs(velocity, torch.ones(2, 3), uniform_times(10), xi=0.55, path=LinearPath(), base=heun)
    assert end.dtype == torch.float64
    assert {dtype for _, dtype in calls} == {torch.float32}
    assert [round(t, 1) for t, _ in calls if t < 0.55] == [0.5, 0.5, 0.4, 0.3, 0.2, 0.1]


def test_thinning_keeps_the_grid_above_xi_and_nine_steps_below():
    times = uniform_times(30)
    thinned = thin_times(times, 0.85, 9)
    high = [t for t in times.tolist() if t >= 0.85]
    low = [t for t in times.tolist() if 0 < t < 0.85]
    # The released rule, written out: indices round(linspace(0, m - 2, 9)) of the m low times.
    expected = [low[round(i)] for i in np.linspace(0, len(low) - 2, 9)]
    assert thinned.tolist() == [*high, *expected, 0.0]
    assert min(low) not in thinned.tolist()


@pytest.mark.parametrize(("shift", "xi", "total"), [(3.0, 0.85, 20), (3.0, 0.90, 17), (3.0, 0.70, 26), (3.0, 0.80, 22)])
def test_thinning_a_shifted_grid_gives_the_published_budgets(shift, xi, total):
    # SD3.5-Large: 30 steps, shift 3.0; budgets of config/published/ablation_xi_sampling.csv. Diffusers
    # spaces the shifted sigmas from 1 to the shift of 1/1000, then appends 0.
    base = torch.linspace(1, shift / 1000 / (1 + (shift - 1) / 1000), 30, dtype=torch.float64)
    times = torch.cat([shift * base / (1 + (shift - 1) * base), torch.zeros(1, dtype=torch.float64)])
    assert len(thin_times(times, xi, 9)) - 1 == total


def test_a_grid_with_nothing_to_thin_is_returned_as_it_is():
    times = uniform_times(10)
    assert torch.equal(thin_times(times, 0.5, 9), times)


@pytest.mark.parametrize(("t", "tau", "noise"), [(0.5, 0.5, 0), (0.5, 0.6, 0), (0.0, -0.1, 0), (0.5, 0.2, 1.5)])
def test_impossible_steps_are_refused(t, tau, noise):
    with pytest.raises(UserError):
        step_weights(LinearPath(), t, tau, float(noise))
