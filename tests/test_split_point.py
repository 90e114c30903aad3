"""The split-point rule on mixtures whose posterior is known, and beside the published curves."""

import csv
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from stablevelocity.errors import UserError
from stablevelocity.gmm import GaussianMixture, paper_mixture
from stablevelocity.interpolants import LinearPath
from stablevelocity.variance import VarianceCurve, exact_variance_curve, split_point, variance_curve

PUBLISHED = Path(__file__).parents[1] / "config" / "published" / "figure1_variance_regimes.csv"
TIMES = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@lru_cache
def curve(dimension: int, seed: int = 0, queries: int = 300) -> VarianceCurve:
    samples = paper_mixture(dimension).sample(10_000, generator(seed)).float()
    return variance_curve(samples, times=TIMES, queries=queries, generator=generator(seed + 100))


def published_rise() -> dict[int, float]:
    with open(PUBLISHED) as file:
        return {
            int(row["dimension"]): float(row["t_rise_read_off"])
            for row in csv.DictReader(file)
            if row["dataset"] == "GMM"
        }


@pytest.mark.parametrize("dimension", [10, 100, 500])
def test_xi_lands_where_the_published_curves_rise(dimension):
    assert split_point(curve(dimension)).xi == pytest.approx(published_rise()[dimension], abs=0.05)


def test_xi_grows_with_the_dimension():
    points = [split_point(curve(dimension)) for dimension in (10, 100, 500)]
    # By more than the intervals: each one ends before the next begins.
    assert points[0].high < points[1].low
    assert points[1].high < points[2].low


@pytest.mark.parametrize("dimension", [10, 100])
def test_another_draw_of_the_data_moves_xi_by_little(dimension):
    one, other = split_point(curve(dimension, 0)), split_point(curve(dimension, 1))
    assert abs(one.xi - other.xi) < 0.03
    # The interval is of use: it holds its point, is not empty, and is narrower than the tolerance above.
    for point in (one, other):
        assert point.low <= point.xi <= point.high
        assert 0 < point.high - point.low < 0.06


def test_at_xi_the_effective_number_of_modes_leaves_one():
    # Modes of standard deviation 0.003: almost points, so the posterior over modes is the whole story.
    mixture = GaussianMixture(
        torch.ones(100), paper_mixture(20).means, torch.full((100, 20), 1e-5, dtype=torch.float64)
    )
    times = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    xi = split_point(exact_variance_curve(mixture, times=times, generator=generator(0), queries=4000)).xi

    def effective_modes(t: float) -> float:
        x_0 = mixture.sample(4000, generator(1))
        noise = torch.randn(x_0.shape, generator=generator(2), dtype=torch.float64)
        weights = mixture.responsibilities(LinearPath().interpolate(x_0, noise, t), t)
        return float((1 / weights.square().sum(1)).mean())

    assert effective_modes(xi - 0.05) < 1.01
    assert 1.005 < effective_modes(xi) < 1.1
    assert effective_modes(xi + 0.1) > 1.2


def test_a_continuous_broad_law_has_no_low_variance_regime():
    # docs/paper.md#variance: the exact curve of the 100-dimensional mixture is at 69 where the finite law has 0.
    exact = exact_variance_curve(paper_mixture(100), times=TIMES, generator=generator(0), queries=500)
    assert split_point(exact).xi == 0.0


def test_the_unit_of_the_data_does_not_matter():
    given = curve(10)
    scaled = VarianceCurve(given.times, given.deviations * 37.0, given.dimension, given.references)
    assert split_point(scaled).xi == pytest.approx(split_point(given).xi, abs=1e-9)


def test_the_crossing_is_read_off_a_known_curve():
    # log V linear in t: V = 10^(20 (t - 1)) up to t = 1, so 1 % of the peak is at 0.9, on and off the grid.
    for times in ([0.8, 0.9, 1.0], [0.75, 0.85, 0.95, 1.0]):
        grid = torch.tensor(times, dtype=torch.float64)
        values = (10 ** (20 * (grid - 1)))[:, None].expand(-1, 5)
        point = split_point(VarianceCurve(grid, values, 1, 5))
        assert point == pytest.approx((0.9, 0.9, 0.9), abs=1e-9)


def test_a_grid_that_cannot_show_the_peak_is_refused():
    short = VarianceCurve(TIMES[:20], torch.ones(20, 3), 1, 3)
    with pytest.raises(UserError, match=r"expected a grid up to 0\.9"):
        split_point(short)
