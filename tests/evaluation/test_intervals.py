"""Bootstrap spreads against the spread over fresh sets; extrapolation and floor against known distances."""

import numpy as np
import pytest
import torch
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.evaluation.fidelity import (
    GaussianStatistics,
    frechet_distance,
    gaussian_statistics,
    inception_score,
)
from stablevelocity.evaluation.intervals import (
    bootstrap_frechet,
    bootstrap_inception_score,
    bootstrap_share,
    extrapolated_frechet,
    frechet_influence,
    real_baseline,
)

D = 8
SHIFT, SCALE = 0.5, 1.3
REFERENCE = GaussianStatistics(torch.zeros(D, dtype=torch.float64), torch.eye(D, dtype=torch.float64))
TRUTH = D * SHIFT**2 + D * (SCALE - 1) ** 2
"""Fréchet distance of N(shift, scale^2 I) to the reference."""


def draw(count: int, seed: int) -> Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed)) * SCALE + SHIFT


@pytest.mark.parametrize("count", [12, 300])
def test_bootstrap_spread_of_fid_is_that_of_fresh_sets(count):
    """Also of few images, where the repeated ones of a resample would spread FID by half as much again."""
    fresh = [frechet_distance(gaussian_statistics([draw(count, s)]), REFERENCE) for s in range(400)]
    widths, inside = [], 0
    for seed in range(1000, 1020):
        interval = bootstrap_frechet(list(draw(count, seed).split(64)), REFERENCE, replicates=200, seed=seed)
        widths.append(interval.high - interval.low)
        inside += interval.low <= np.mean(fresh) <= interval.high
    assert np.mean(fresh) > TRUTH  # the bias at this N, which the interval keeps
    # A 95 % interval of a normal distribution is 3.92 deviations wide; both sides are estimated, hence 20 %.
    assert np.mean(widths) == pytest.approx(3.92 * np.std(fresh), rel=0.2)
    assert inside >= 15  # 19 expected of 20; 15 or fewer has probability 3e-4


def test_the_influence_function_is_the_derivative_of_fid():
    """By doubling one image: a step of 1/N towards it, whose error is of second order."""
    rows = draw(4000, 0)
    statistics = gaussian_statistics([rows])
    covariance = statistics.covariance * (len(rows) - 1) / len(rows)  # as a distribution of equal weights has it
    mean, step = statistics.mean, 1e-5
    for row, influence in zip(rows[:5].double(), frechet_influence([rows], REFERENCE), strict=False):
        moved_mean = (1 - step) * mean + step * row
        second_moment = (1 - step) * (covariance + torch.outer(mean, mean)) + step * torch.outer(row, row)
        moved = GaussianStatistics(moved_mean, second_moment - torch.outer(moved_mean, moved_mean))
        before = frechet_distance(GaussianStatistics(mean, covariance), REFERENCE)
        derivative = (frechet_distance(moved, REFERENCE) - before) / step
        assert derivative == pytest.approx(float(influence), rel=0.01, abs=0.01)  # S by N or N - 1, and 1e-5 of 40


def test_bootstrap_does_not_depend_on_chunks():
    rows = draw(200, 0)
    whole = bootstrap_frechet([rows], REFERENCE, replicates=10)
    assert bootstrap_frechet(list(rows.split(33)), REFERENCE, replicates=10) == pytest.approx(whole, rel=1e-9)


def test_bootstrap_spread_of_the_inception_score_is_that_of_fresh_sets():
    fresh = np.std([inception_score(3 * draw(400, s), splits=4).mean for s in range(100)])
    interval = [bootstrap_inception_score(3 * draw(400, s), splits=4, replicates=200, seed=s) for s in range(5)]
    assert np.mean([i.high - i.low for i in interval]) == pytest.approx(3.92 * fresh, rel=0.25)


def test_bootstrap_share_is_the_binomial_interval():
    inside = torch.arange(400) % 4 == 0
    interval = bootstrap_share(inside, replicates=20_000)
    deviation = (0.25 * 0.75 / 400) ** 0.5
    assert interval == pytest.approx((0.25 - 1.96 * deviation, 0.25 + 1.96 * deviation), abs=0.004)


def test_extrapolated_fid_removes_the_bias_of_finite_sets():
    errors, biases = [], []
    for seed in range(12):
        rows = draw(600, seed)
        biases.append(frechet_distance(gaussian_statistics([rows]), REFERENCE) - TRUTH)
        extrapolation = extrapolated_frechet(list(rows.split(100)), REFERENCE, seed=seed)
        assert extrapolation is not None
        errors.append(extrapolation[0] - TRUTH)
    standard_error = np.std(errors) / np.sqrt(len(errors))
    assert abs(np.mean(errors)) < 3 * standard_error
    # Same draws, so the difference of the means is known far better than either: the bias is seen and removed.
    assert np.mean(biases) - np.mean(errors) > 0.02


def test_extrapolation_needs_four_times_as_many_images_as_features():
    assert extrapolated_frechet([draw(31, 0)], REFERENCE) is None
    assert extrapolated_frechet([draw(32, 0)], REFERENCE) is not None


def test_the_baseline_between_real_halves_is_the_bias_of_both_sides():
    baseline = real_baseline(list(draw(2000, 0).split(300)), repeats=5)
    fresh = [
        frechet_distance(gaussian_statistics([draw(1000, s)]), gaussian_statistics([draw(1000, s + 50)]))
        for s in range(20)
    ]
    assert baseline.images == 1000
    assert baseline.mean == pytest.approx(np.mean(fresh), abs=3 * np.std(fresh) / np.sqrt(5))
    with pytest.raises(UserError, match="at least 4 real images, given 3"):
        real_baseline([draw(3, 0)])
