"""A noisy step of each scheduler is the general solution of docs/paper.md#stablevs on the linear path."""

import math

import pytest
import torch
from scheduler_cases import noise, run, velocity

from stablevelocity.schedulers import StableVSFlowMatchEulerScheduler


@pytest.mark.parametrize("factor", [0.3, 1.0])
def test_below_xi_the_old_noise_shrinks_and_fresh_noise_of_the_given_share_joins_it(base, factor):
    ours = base.stablevs(**base.config, noise_factor=factor)
    ours.set_timesteps(30)
    states, sigmas = run(ours, noise(2, 4), generator=torch.Generator().manual_seed(3)), ours.sigmas.double()
    draws = torch.Generator().manual_seed(3)
    for i in range(ours.first_low_step - base.hands_over_early, len(sigmas) - 1):
        t, tau, x = sigmas[i], sigmas[i + 1], states[i].double()
        x0 = x - t * velocity(states[i], ours.timesteps[i]).double()
        rho = tau / t * math.sqrt(1 - factor**2)
        expected = rho * x + (1 - tau - (1 - t) * rho) * x0
        expected += factor * tau * torch.randn(2, 4, generator=draws)
        # float32 against float64.
        torch.testing.assert_close(states[i + 1].double(), expected, rtol=1e-5, atol=1e-6)


def test_exact_where_the_data_is_one_point():
    # x_t = (1 - t) c + t eps has velocity eps - c: any step, of any length, must land on the same path.
    centre, eps = noise(4, 2, seed=5), noise(4, 2, seed=6)
    ours = StableVSFlowMatchEulerScheduler(low_steps=1, xi=1.0)
    ours.set_timesteps(sigmas=[0.8, 0.1])
    x = 0.2 * centre + 0.8 * eps
    first = ours.step(eps - centre, ours.timesteps[0], x).prev_sample
    torch.testing.assert_close(first, centre, rtol=0, atol=1e-6)  # the one low step goes to 0
