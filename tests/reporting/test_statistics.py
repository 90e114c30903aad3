"""Intervals over seeds against scipy and against ordinary least squares."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stablevelocity.reporting.statistics import difference, over_seeds, t_factor

ROUNDING = 1e-10


def test_interval_of_a_mean_is_students_t():
    values = [1.20, 1.08, 1.04]
    estimate = over_seeds(values)
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx(expected, rel=ROUNDING)
    assert estimate.sd == pytest.approx(np.std(values, ddof=1), rel=ROUNDING)


def test_two_seeds_give_the_wide_interval_that_they_deserve():
    estimate = over_seeds([1.0, 1.1])
    # 12.706 is the table value of t for one degree of freedom; 0.05 is the half distance.
    assert estimate.high - estimate.mean == pytest.approx(12.706 * 0.05, rel=1e-4)


def test_one_seed_gives_no_interval():
    estimate = over_seeds([1.0])
    assert estimate.mean == 1.0
    assert all(math.isnan(value) for value in (estimate.sd, estimate.low, estimate.high))


def arms_by_seeds() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    seeds = rng.normal(0, 0.3, 3)
    means = {"cfm": 1.1, "repa": 1.05, "stablevm": 0.8, "high": 1.3}
    return pd.DataFrame({arm: mean + seeds + rng.normal(0, 0.05, 3) for arm, mean in means.items()}).T


def test_pooled_interval_is_that_of_the_two_way_least_squares_fit():
    values = arms_by_seeds()
    found = difference(values, "stablevm", "cfm")
    # The same by regression: dummies for arms (first is cfm) and seeds, coefficient of stablevm.
    arms, seeds = values.shape
    rows = [(arm, seed) for arm in range(arms) for seed in range(seeds)]
    design = np.array(
        [[1.0] + [arm == a for a in range(1, arms)] + [seed == s for s in range(1, seeds)] for arm, seed in rows]
    )
    y = np.array([values.iloc[arm, seed] for arm, seed in rows])
    beta, residual, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    freedom = len(y) - rank
    column = 1 + list(values.index).index("stablevm") - 1
    error = math.sqrt(residual[0] / freedom * np.linalg.inv(design.T @ design)[column, column])
    half = stats.t.ppf(0.975, freedom) * error
    assert found is not None
    assert found.freedom == freedom == 6
    assert found.mean == pytest.approx(beta[column], rel=1e-8)
    assert found.high - found.mean == pytest.approx(half, rel=1e-8)


def test_paired_interval_removes_what_the_seeds_share():
    values = arms_by_seeds()
    found = difference(values, "stablevm", "cfm")
    expected = stats.ttest_rel(values.loc["stablevm"], values.loc["cfm"]).confidence_interval(0.95)
    assert found is not None
    assert (found.paired_low, found.paired_high) == pytest.approx((expected.low, expected.high), rel=1e-8)


def test_seeds_that_only_one_arm_has_are_left_out():
    values = arms_by_seeds()
    values.loc["cfm", 0] = np.nan
    found = difference(values, "stablevm", "cfm")
    assert found is not None
    assert found.count == 2
    assert found.mean == pytest.approx((values.loc["stablevm"] - values.loc["cfm"]).dropna().mean())
    values.loc["cfm"] = np.nan
    assert difference(values, "stablevm", "cfm") is None


def test_pooled_interval_holds_the_truth_95_times_in_100():
    rng = np.random.default_rng(1)
    trials, inside = 600, 0
    for _ in range(trials):
        shared = rng.normal(0, 1, 2)
        values = pd.DataFrame({arm: shared + rng.normal(0, 0.1, 2) for arm in "abcdef"}).T
        found = difference(values, "a", "b")
        assert found is not None
        inside += found.low <= 0 <= found.high
    # Four binomial standard deviations.
    assert abs(inside / trials - 0.95) < 4 * math.sqrt(0.95 * 0.05 / trials)


def test_t_factor_tends_to_the_normal_one():
    assert t_factor(1) == pytest.approx(12.706, abs=1e-3)
    assert t_factor(10**7) == pytest.approx(1.95996, abs=1e-4)
