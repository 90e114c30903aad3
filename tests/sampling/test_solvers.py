"""With Gaussian data the exact marginal and velocity are known: each solver must reach them at its order."""

import math

import pytest
import torch

from stablevelocity.errors import UserError
from stablevelocity.interpolants import CosinePath, LinearPath
from stablevelocity.sampling import euler, euler_maruyama, euler_maruyama_times, heun, uniform_times
from stablevelocity.sampling.solvers import noise_like

MEAN, VARIANCE = 1.5, 0.3


def moments(path, t: float) -> tuple[float, float]:
    """Mean and standard deviation of x_t for data N(MEAN, VARIANCE)."""
    alpha, sigma = float(path.alpha(t)), float(path.sigma(t))
    return alpha * MEAN, math.sqrt(alpha**2 * VARIANCE + sigma**2)


def gaussian_velocity(path):
    """Marginal velocity of N(MEAN, VARIANCE): derivative of the mean and standard deviation of x_t."""

    def velocity(x, t):
        alpha, sigma = float(path.alpha(t)), float(path.sigma(t))
        alpha_dot, sigma_dot = float(path.alpha_dot(t)), float(path.sigma_dot(t))
        slope = (alpha * alpha_dot * VARIANCE + sigma * sigma_dot) / (alpha**2 * VARIANCE + sigma**2)
        return alpha_dot * MEAN + slope * (x - alpha * MEAN)

    return velocity


def exact_flow(path, x, start: float, end: float):
    """The ODE's map between two marginals: standardise, then scale (it is monotone in one dimension)."""
    (mean_0, std_0), (mean_1, std_1) = moments(path, start), moments(path, end)
    return mean_1 + std_1 * (x - mean_0) / std_0


def slope(steps: list[int], errors: list[float]) -> float:
    x, y = torch.tensor(steps).double().log(), torch.tensor(errors).double().log()
    x = x - x.mean()
    return float((x @ y) / (x @ x))


@pytest.mark.parametrize("path", [LinearPath(), CosinePath()], ids=["linear", "cosine"])
@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (heun, 2)])
@pytest.mark.parametrize("last", [0.0, 0.2], ids=["to data", "to 0.2"])
def test_the_ode_reaches_the_exact_map_at_the_solvers_order(path, solver, order, last):
    x = torch.tensor([[-2.0], [0.3], [1.7]], dtype=torch.float64)
    truth = exact_flow(path, x, 1.0, last)
    steps = [64, 128, 256]
    errors = []
    for n in steps:
        times = last + (1 - last) * uniform_times(n)
        errors.append(float((solver(gaussian_velocity(path), x, times) - truth).abs().max()))
    # Higher orders still show at 64 steps; 0.1 parts order 1 from 2 and catches a lost half step.
    assert slope(steps, errors) == pytest.approx(-order, abs=0.1)


def euler_maruyama_moments(path, diffusion, times) -> tuple[float, float]:
    """Exact mean and variance of the scheme's result, from N(0, 1), without sampling error.

    Each step is x -> a x + b + s z with a z that the seed tells, so three rows give a, b and s.
    """
    mean, variance = 0.0, 1.0
    x = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
    z = noise_like(x, torch.Generator().manual_seed(7))[:, 0]
    for step in times.unfold(0, 2, 1):
        generator = torch.Generator().manual_seed(7)
        end = euler_maruyama(gaussian_velocity(path), x, step, path=path, diffusion=diffusion, generator=generator)[
            :, 0
        ]
        s = (end[0] - end[1]) / (z[0] - z[1])
        b = end[0] - s * z[0]
        a = end[2] - b - s * z[2]
        mean, variance = float(a * mean + b), float(a**2 * variance + s**2)
    return mean, variance


@pytest.mark.parametrize("diffusion", ["t", "2t"])
@pytest.mark.parametrize("path", [LinearPath(), CosinePath()], ids=["linear", "cosine"])
def test_euler_maruyama_reaches_the_exact_mean_and_variance_at_weak_order_one(path, diffusion):
    steps, last = [160, 320, 640], 0.2
    results = [euler_maruyama_moments(path, diffusion, last + (1 - last) * uniform_times(n)) for n in steps]
    mean, std = moments(path, last)
    for errors in ([abs(m - mean) for m, _ in results], [abs(v - std**2) for _, v in results]):
        assert errors[-1] < 0.001
        # The mean on the linear path is exact from the first step on; where the leading error nearly cancels
        # (variance, linear, 2t) the slope still bends by 0.1 here.
        assert errors[0] < 1e-12 or slope(steps, errors) == pytest.approx(-1, abs=0.15)


def test_euler_maruyama_draws_real_noise_with_the_right_law():
    path, count = LinearPath(), 20_000
    x = torch.randn(count, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = 0.2 + 0.8 * uniform_times(200)
    generator = torch.Generator().manual_seed(1)
    end = euler_maruyama(gaussian_velocity(path), x, times, path=path, diffusion="2t", generator=generator)
    mean, std = moments(path, 0.2)
    # Four standard errors, plus the scheme's own bias at 200 steps (0.002, previous test).
    assert float(end.mean()) == pytest.approx(mean, abs=4 * std / count**0.5 + 0.002)
    assert float(end.var()) == pytest.approx(std**2, abs=4 * std**2 * (2 / count) ** 0.5 + 0.004)
    # A linear SDE with marginal variance V forgets its start as exp(-integral of g/(2V)); an ODE never does.
    rates = torch.tensor([t / moments(path, t)[1] ** 2 for t in torch.linspace(0.2, 1, 801).tolist()])
    memory = math.exp(-float(rates.sum() - (rates[0] + rates[-1]) / 2) * 0.001)
    measured = float(torch.corrcoef(torch.cat([x, end], 1).T)[0, 1])
    assert measured == pytest.approx(memory, abs=4 / count**0.5 + 0.005)


def test_the_two_diffusion_coefficients_differ():
    x = torch.ones(4, 1, dtype=torch.float64)
    ends = [
        euler_maruyama(
            gaussian_velocity(LinearPath()),
            x,
            euler_maruyama_times(20),
            path=LinearPath(),
            diffusion=diffusion,
            generator=torch.Generator().manual_seed(0),
        )
        for diffusion in ("t", "2t")
    ]
    assert not torch.allclose(ends[0], ends[1], atol=1e-3)


def test_the_last_euler_maruyama_step_adds_no_noise():
    path = LinearPath()
    times = torch.tensor([0.04, 0.0], dtype=torch.float64)
    x = torch.full((3, 1), 0.7, dtype=torch.float64)
    v = gaussian_velocity(path)(x, 0.04)
    expected = x - 0.04 * (v - 0.02 * path.score_from_velocity(x, v, 0.04))
    assert torch.equal(euler_maruyama(gaussian_velocity(path), x, times, path=path), expected)


def test_a_shifted_grid_is_that_of_the_flow_schedulers():
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=[k / 30 for k in range(30, 0, -1)])
    torch.testing.assert_close(uniform_times(30, 3.0), scheduler.sigmas.double(), atol=1e-7, rtol=0)
    assert torch.equal(uniform_times(30, 1.0), uniform_times(30))


def test_grids_are_those_of_the_paper():
    uniform = uniform_times(250)
    assert len(uniform) == 251
    assert uniform[0] == 1
    assert uniform[-1] == 0
    assert uniform[75].item() == 0.7  # exactly: a closed guidance interval must include it
    noisy = euler_maruyama_times(250)
    assert len(noisy) == 251
    assert noisy[-2:].tolist() == [0.04, 0.0]
    assert torch.allclose(noisy[:-1].diff(), torch.tensor(-0.96 / 249, dtype=torch.float64), atol=1e-15)


@pytest.mark.parametrize(("solver", "calls"), [(euler, 10), (heun, 19)])
def test_calls_of_the_network(solver, calls):
    times = []

    def velocity(x, t):
        times.append(t)
        return -x

    solver(velocity, torch.ones(2, 3), uniform_times(10))
    assert len(times) == calls
    assert min(times) > 0


def test_the_state_is_float64_and_the_network_keeps_its_dtype():
    seen = set()

    def velocity(x, t):
        seen.add(x.dtype)
        return -x

    assert euler(velocity, torch.ones(2, 3), uniform_times(4)).dtype == torch.float64
    assert seen == {torch.float32}


@pytest.mark.parametrize("times", [[0.0, 1.0], [1.0, 0.5, 0.5], [1.0], [1.2, 0.0], [0.5, -0.1]])
def test_bad_grids_are_refused(times):
    with pytest.raises(UserError, match="times"):
        euler(lambda x, t: x, torch.ones(1, 1), torch.tensor(times, dtype=torch.float64))


def test_an_unknown_diffusion_is_refused():
    with pytest.raises(UserError, match="diffusion 'sigma'; expected one of t, 2t"):
        euler_maruyama(lambda x, t: x, torch.ones(1, 1), uniform_times(2), path=LinearPath(), diffusion="sigma")
