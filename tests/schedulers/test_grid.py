"""The grid rule, on schedules short enough to work out by hand; test_conversion.py has the four models' step counts."""

import math

import numpy as np
import pytest

from stablevelocity.errors import UserError
from stablevelocity.schedulers import StableVSFlowMatchEulerScheduler
from stablevelocity.schedulers.grid import require_flow_sigmas, thinned_indices

TENTHS = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_all_sigmas_from_xi_upwards_are_kept_and_few_spread_below():
    # 7 low sigmas at 0.7 ... 0.1; three of them at 0, 3, 6 (all) or at 0, round(2.5) = 2, 5 (without the smallest).
    assert thinned_indices(TENTHS, 0.8, 3, skip_smallest=False) == [0, 1, 2, 3, 6, 9]
    assert thinned_indices(TENTHS, 0.8, 3, skip_smallest=True) == [0, 1, 2, 3, 5, 8]


def test_a_sigma_equal_to_xi_belongs_to_the_high_regime():
    assert thinned_indices(TENTHS, 0.8, 1, skip_smallest=False) == [0, 1, 2, 3]
    assert thinned_indices(TENTHS, 0.8000001, 1, skip_smallest=False) == [0, 1, 2]


@pytest.mark.parametrize("skip_smallest", [False, True])
@pytest.mark.parametrize("low_steps", [7, 8, 100])
def test_nothing_is_dropped_or_doubled_where_the_low_regime_is_short(low_steps, skip_smallest):
    assert thinned_indices(TENTHS, 0.8, low_steps, skip_smallest=skip_smallest) == list(range(10))


def test_one_sigma_more_than_low_steps_still_gives_low_steps():
    assert thinned_indices(TENTHS, 0.8, 6, skip_smallest=True) == list(range(9))
    assert len(thinned_indices(TENTHS, 0.8, 6, skip_smallest=False)) == 9


def test_the_whole_schedule_may_lie_on_one_side_of_xi():
    assert thinned_indices(TENTHS, 0.0, 2, skip_smallest=True) == list(range(10))
    assert thinned_indices(TENTHS[1:], 1.0, 2, skip_smallest=False) == [0, 8]


@pytest.mark.parametrize("sigmas", [[1.0, 1.0, 0.5], [0.2, 0.5, 1.0], [1.0, 0.5, 0.0], [14.6, 3.0, 0.1]])
def test_a_schedule_that_is_not_of_flow_sigmas_is_refused_in_one_line(sigmas):
    with pytest.raises(UserError, match="decrease strictly") as refusal:
        require_flow_sigmas(np.array(sigmas), "Some")
    assert "\n" not in str(refusal.value)


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
