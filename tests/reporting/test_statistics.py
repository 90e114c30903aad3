"""Intervals over seeds against scipy and against ordinary least squares."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stablevelocity.reporting.statistics import Estimate, difference, over_clusters, over_seeds, seed_columns, t_factor

ROUNDING = 1e-10


def test_interval_of_a_mean_is_students_t():
    values = [1.20, 1.08, 1.04]
    estimate = over_seeds(values)
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert estimate.bounds() == pytest.approx(expected, rel=ROUNDING)
    assert seed_columns("fid", values)["fid_sd"] == pytest.approx(np.std(values, ddof=1), rel=ROUNDING)
    # One-sided p-values against scipy's test of one sample.
    for bound in (0.9, 1.1, 1.3):
        assert estimate.p_below(bound) == pytest.approx(stats.ttest_1samp(values, bound, alternative="less").pvalue)
        assert estimate.p_above(bound) == pytest.approx(stats.ttest_1samp(values, bound, alternative="greater").pvalue)


def test_two_seeds_give_the_wide_interval_that_they_deserve():
    estimate = over_seeds([1.0, 1.1])
    # 12.706 is the table value of t for one degree of freedom; 0.05 is the half distance.
    assert estimate.bounds()[1] - estimate.mean == pytest.approx(12.706 * 0.05, rel=1e-4)


def test_one_seed_gives_no_interval():
    estimate = over_seeds([1.0])
    assert estimate.mean == 1.0
    assert all(math.isnan(value) for value in (*estimate.bounds(), estimate.p_below(0), estimate.p_above(0)))


def test_images_of_one_cluster_count_once():
    """Ten frames that differ by nothing say no more than one: the interval is that of the 40 videos."""
    rng = np.random.default_rng(3)
    videos = rng.normal(0.2, 1.0, 40)
    frames = pd.DataFrame({"video": np.repeat(np.arange(40), 10), "gain": np.repeat(videos, 10)})
    estimate = over_clusters(frames["gain"], frames["video"])
    assert estimate.mean == pytest.approx(videos.mean())
    low, high = estimate.bounds()
    # The bootstrap's percentiles are the normal interval of the 40 but for skewness and its own Monte Carlo error.
    half = 1.96 * videos.std() / math.sqrt(40)
    assert (low, high) == pytest.approx((videos.mean() - half, videos.mean() + half), abs=0.05 * half)
    as_if = over_clusters(frames["gain"], pd.Series(range(400)))
    assert as_if.error < 0.4 * estimate.error


def test_the_detectable_effect_is_found_in_four_of_five_repetitions():
    n, error, rng = 6, 1 / math.sqrt(6), np.random.default_rng(4)
    effect = Estimate(0.0, error, n - 1).detectable
    found = np.mean([over_seeds(rng.normal(effect, 1, n)).p_above(0) < 0.025 for _ in range(4000)])
    # The formula takes Student's t where the exact power is that of the non-central one: 1 to 3 points less here.
    assert found == pytest.approx(0.8, abs=0.04)


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
    assert found.pooled.freedom == freedom == 6
    assert found.pooled.mean == pytest.approx(beta[column], rel=1e-8)
    assert found.pooled.bounds()[1] - found.pooled.mean == pytest.approx(half, rel=1e-8)


def test_paired_interval_removes_what_the_seeds_share():
    values = arms_by_seeds()
    found = difference(values, "stablevm", "cfm")
    expected = stats.ttest_rel(values.loc["stablevm"], values.loc["cfm"]).confidence_interval(0.95)
    assert found is not None
    assert found.paired.bounds() == pytest.approx((expected.low, expected.high), rel=1e-8)


def test_seeds_that_only_one_arm_has_are_left_out():
    values = arms_by_seeds()
    values.loc["cfm", 0] = np.nan
    found = difference(values, "stablevm", "cfm")
    assert found is not None
    assert found.count == 2
    assert found.pooled.mean == pytest.approx((values.loc["stablevm"] - values.loc["cfm"]).dropna().mean())
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
        low, high = found.pooled.bounds()
        inside += low <= 0 <= high
    # Four binomial standard deviations.
    assert abs(inside / trials - 0.95) < 4 * math.sqrt(0.95 * 0.05 / trials)


def test_t_factor_tends_to_the_normal_one():
    assert t_factor(1) == pytest.approx(12.706, abs=1e-3)
    assert t_factor(10**7) == pytest.approx(1.95996, abs=1e-4)
