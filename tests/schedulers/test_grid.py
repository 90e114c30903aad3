"""Thinned schedules of the models, whose sigmas are known; tests/sampling/test_grid.py has the rule by itself."""

import math

import numpy as np
import pytest

from stablevelocity.schedulers import StableVSFlowMatchEulerScheduler


def linear_sigmas(steps):
    return list(np.linspace(1.0, 1 / steps, steps))


@pytest.mark.parametrize("xi, total", [(0.70, 26), (0.80, 22), (0.85, 20), (0.90, 17)])
def test_the_xi_ablation_of_sd35_has_the_published_step_counts(xi, total):
    # config/published/ablation_xi_sampling.csv, column total_steps.
    scheduler = StableVSFlowMatchEulerScheduler(shift=3.0, xi=xi)
    scheduler.set_timesteps(30)
    assert len(scheduler.timesteps) == total


def test_thinned_sigmas_are_sigmas_of_the_shifted_base_schedule():
    # Flux by hand: sigma = e^mu / (e^mu + 1/u - 1), u = k/30; nothing is moved, only left out.
    scheduler = StableVSFlowMatchEulerScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=linear_sigmas(30), mu=1.15)
    every = [math.exp(1.15) / (math.exp(1.15) + 30 / k - 1) for k in range(30, 0, -1)]
    high = [s for s in every if s >= 0.85]
    low = [s for s in every if s < 0.85]
    offsets = np.round(np.linspace(0, len(low) - 2, 9)).astype(int)
    expected = [*high, *(low[i] for i in offsets), 0.0]
    np.testing.assert_allclose(scheduler.sigmas.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(scheduler.timesteps.numpy(), 1000 * np.array(expected[:-1]), rtol=1e-6)
