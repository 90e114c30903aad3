"""The scheduler's step against the general solution of docs/paper.md#stablevs, written out independently here."""

import math

import pytest
import torch
from scheduler_cases import noise
from scipy.integrate import quad

from stablevelocity.schedulers.closed_form import closed_form_step

PAIRS = [(0.85, 0.8), (0.7, 0.3), (0.5, 0.01), (0.2, 0.0)]


def linear_path(t):
    """alpha, sigma, alpha', sigma'."""
    return 1 - t, t, -1.0, 1.0


def scale(t):
    alpha, sigma, alpha_dot, sigma_dot = linear_path(t)
    return alpha_dot - alpha * sigma_dot / sigma


@pytest.mark.parametrize("t, tau", [pair for pair in PAIRS if pair[1] > 0])
def test_without_noise_it_is_the_papers_ode_solution_by_quadrature(t, tau):
    _, sigma, _, sigma_dot = linear_path(t)
    integral, _ = quad(lambda s: scale(s) / linear_path(s)[1], t, tau, epsabs=1e-12)
    psi = integral / scale(t)
    x, v = noise(5, 3, seed=1).double(), noise(5, 3, seed=2).double()
    expected = linear_path(tau)[1] * ((1 / sigma - sigma_dot / sigma * psi) * x + psi * v)
    got = closed_form_step(
        x, v, torch.tensor(t, dtype=torch.float64), torch.tensor(tau, dtype=torch.float64), noise_factor=0.0
    )
    # Quadrature and rounding in float64.
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("factor", [0.3, 1.0])
@pytest.mark.parametrize("t, tau", PAIRS)
def test_with_noise_mean_and_spread_are_the_papers(t, tau, factor):
    alpha, sigma, _, sigma_dot = linear_path(t)
    alpha_tau, sigma_tau, _, _ = linear_path(tau)
    beta = factor * sigma_tau
    rho = math.sqrt((sigma_tau**2 - beta**2) / sigma**2)
    lam = (alpha_tau - alpha * rho) / scale(t)
    x, v = noise(200_000, seed=1).double()[:, None], noise(200_000, seed=2).double()[:, None]
    mean = (rho - lam * sigma_dot / sigma) * x + lam * v
    got = closed_form_step(
        x,
        v,
        torch.tensor(t, dtype=torch.float64),
        torch.tensor(tau, dtype=torch.float64),
        noise_factor=factor,
        generator=torch.Generator().manual_seed(3),
    )
    residual = got - mean
    # Mean and standard deviation of 200,000 draws: errors of beta/447 and beta/632; 5 of them.
    assert abs(float(residual.mean())) <= 5 * beta / 447 + 1e-9
    assert abs(float(residual.std()) - beta) <= 5 * beta / 632 + 1e-9


def test_exact_where_the_data_is_one_point():
    # x_t = (1 - t) c + t eps has velocity eps - c: any step, of any length, must land on the same path.
    centre, eps = noise(4, 2, seed=5), noise(4, 2, seed=6)
    x = 0.2 * centre + 0.8 * eps
    got = closed_form_step(x, eps - centre, torch.tensor(0.8), torch.tensor(0.1), noise_factor=0.0)
    torch.testing.assert_close(got, 0.9 * centre + 0.1 * eps, rtol=0, atol=1e-6)


def test_a_list_of_generators_gives_each_sample_its_own_noise():
    x, v, t, tau = noise(2, 4, seed=1), noise(2, 4, seed=2), torch.tensor(0.5), torch.tensor(0.3)

    def stepped(rows, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return closed_form_step(x[rows], v[rows], t, tau, noise_factor=0.7, generator=generators)

    both, second = stepped([0, 1], [10, 11]), stepped([1], [11])
    torch.testing.assert_close(both[1:], second, rtol=0, atol=0)
