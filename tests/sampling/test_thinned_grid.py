"""The grid rule, on schedules short enough to work out by hand."""

import numpy as np
import pytest

from stablevelocity.sampling.grid import thinned_indices

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
