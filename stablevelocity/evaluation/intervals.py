"""How sure a metric is: bootstrap intervals, FID at infinitely many images, and the floor between real sets.

The reference is taken as given (it is the yardstick everybody uses); what is resampled are the generated
images. All functions take the same re-iterable tables of features as `fidelity` and hold a few (d, d)
matrices at a time.
"""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.evaluation.fidelity import (
    GaussianStatistics,
    SplitSums,
    Table,
    frechet_distance,
    gaussian_statistics,
)

MATRIX_BUDGET = 2**29
"""Bytes of (d, d) matrices that are held together."""


class Interval(NamedTuple):
    """95 % interval of a metric."""

    low: float
    high: float


def bootstrap_frechet(table: Table, reference: GaussianStatistics, *, replicates: int = 200, seed: int = 0) -> Interval:
    """Centred bootstrap interval of FID over the generated images.

    FID of a resample is biased upwards a second time by as much as FID itself is, so the percentiles of the
    replicates do not even hold the estimate. Their **spread** is what the bootstrap knows: the interval is FID
    plus the percentiles of (replicate - mean of the replicates). It says how far FID at this N moves from one
    set of N images to the next, not where FID at infinite N is (see `extrapolated_frechet`).
    """
    statistics = _quiet_statistics(table)
    count = _count(statistics)
    counts = _resampled_counts(count, replicates, seed)
    distances = _weighted_frechet(table, statistics.mean, counts, reference)
    return _centred(frechet_distance(statistics, reference), distances)


def bootstrap_inception_score(logits: Table, *, splits: int = 10, replicates: int = 200, seed: int = 0) -> Interval:
    """Centred bootstrap interval of the Inception score, images resampled within each split."""
    sums = SplitSums.of(logits, splits)
    rng = np.random.default_rng(seed)
    counts = torch.cat(
        [torch.from_numpy(rng.multinomial(int(n), np.full(int(n), 1 / int(n)), size=replicates)) for n in sums.count],
        dim=1,
    )
    edges = sums.count.cumsum(0)
    entropies = torch.zeros(replicates, splits, dtype=torch.float64)
    probability = torch.zeros(splits, replicates, sums.probability.shape[1], dtype=torch.float64)
    start = 0
    for rows in logits:
        logs = rows.double().log_softmax(dim=1)
        chosen = counts[:, start : start + len(rows)].double()
        split_of_row = torch.searchsorted(edges, torch.arange(start, start + len(rows)), right=True)
        for split in split_of_row.unique().tolist():
            inside = split_of_row == split
            p = logs[inside].exp()
            entropies[:, split] += chosen[:, inside] @ (p * logs[inside]).sum(dim=1)
            probability[split] += chosen[:, inside] @ p
        start += len(rows)
    marginal = probability / sums.count[:, None, None]
    gain = entropies / sums.count - torch.xlogy(marginal, marginal).sum(dim=2).T
    estimate = (sums.negative_entropy / sums.count - sums.marginal_negative_entropy()).exp().mean()
    return _centred(float(estimate), gain.exp().mean(dim=1))


def bootstrap_share(inside: Bool[Tensor, " n"], *, replicates: int = 1000, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of precision or recall, given which points lie inside.

    Both manifolds stay as they are: resampling a set with replacement doubles points, and a doubled point has
    neighbours at distance 0, which would shrink the manifold. So recall's interval holds the choice of the
    reference images, not that of the generated ones.
    """
    n = len(inside)
    shares = np.random.default_rng(seed).binomial(n, float(inside.double().mean()), size=replicates) / n
    low, high = np.percentile(shares, [2.5, 97.5])
    return Interval(float(low), float(high))


class Extrapolation(NamedTuple):
    """FID at infinite N, and the line it was read from."""

    value: float
    slope: float
    """FID at N is about value + slope / N."""
    counts: list[int]
    distances: list[float]


def extrapolated_frechet(
    table: Table, reference: GaussianStatistics, *, points: int = 15, orders: int = 4, seed: int = 0
) -> Extrapolation | None:
    """FID at infinitely many generated images (Chong & Forsyth 2020): the intercept of FID against 1/N.

    FID is computed on growing subsets, from a tenth of the images (at least twice the number of features,
    where the 1/N law holds) to all of them, averaged over `orders` random orders of the images. The bias that
    comes from the reference's own finite size stays. Returns None, with a warning, when there are too few
    images for a line.
    """
    statistics = _quiet_statistics(table)
    count, d = _count(statistics), len(statistics.mean)
    smallest = max(count // 10, 2 * d)
    if smallest > count // 2:
        warnings.warn(
            f"{count} images for {d} features: FID at infinite N needs at least {4 * d} images and is left out",
            stacklevel=2,
        )
        return None
    counts = np.unique(np.linspace(smallest, count, points).round().astype(int))
    rng = np.random.default_rng(seed)
    distances = torch.zeros(len(counts), dtype=torch.float64)
    for _ in range(orders):
        rank = rng.permutation(count)
        members = torch.from_numpy((rank[None] < counts[:, None]).astype(np.int64))
        distances += _weighted_frechet(table, statistics.mean, members, reference) / orders
    slope, intercept = np.polyfit(1 / counts, distances.numpy(), 1)
    return Extrapolation(float(intercept), float(slope), counts.tolist(), distances.tolist())


class Floor(NamedTuple):
    """FID between two disjoint halves of real images: what no generator can be expected to beat."""

    mean: float
    low: float
    high: float
    images: int
    """Images in each half."""


def real_floor(table: Table, *, repeats: int = 10, seed: int = 0) -> Floor:
    """FID of one random half of the real features against the other half; mean and range over `repeats` splits.

    Both sides are finite here, so this is the floor at half the number of real images; with fewer images on
    either side it is higher.
    """
    statistics = _quiet_statistics(table)
    count = _count(statistics)
    half = count // 2
    if half < 2:
        raise UserError(f"the floor between two halves needs at least 4 real images, given {count}")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        rank = rng.permutation(count)
        members = torch.from_numpy(np.stack([rank < half, rank >= count - half]).astype(np.int64))
        first, second = _weighted_statistics(table, statistics.mean, members)
        values.append(frechet_distance(first, second))
    return Floor(float(np.mean(values)), min(values), max(values), half)


def _quiet_statistics(table: Table) -> GaussianStatistics:
    """Statistics without the warning about few images, which the metric itself has given already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gaussian_statistics(table)


def _count(statistics: GaussianStatistics) -> int:
    assert statistics.count is not None
    return statistics.count


def _resampled_counts(count: int, replicates: int, seed: int) -> Shaped[Tensor, "replicates n"]:
    """How often each image occurs in each resample."""
    rng = np.random.default_rng(seed)
    drawn = [np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(replicates)]
    return torch.from_numpy(np.stack(drawn).astype(np.int16))


def _weighted_frechet(
    table: Table,
    centre: Float[Tensor, " d"],
    weights: Shaped[Tensor, "replicates n"],
    reference: GaussianStatistics,
) -> Float[Tensor, " replicates"]:
    """FID of the images taken `weights` times each, for each row of weights; few covariances held at a time."""
    group = max(1, MATRIX_BUDGET // (8 * len(centre) ** 2))
    distances = [
        frechet_distance(statistics, reference)
        for start in range(0, len(weights), group)
        for statistics in _weighted_statistics(table, centre, weights[start : start + group])
    ]
    return torch.tensor(distances, dtype=torch.float64)


def _weighted_statistics(
    table: Table, centre: Float[Tensor, " d"], weights: Shaped[Tensor, "replicates n"]
) -> list[GaussianStatistics]:
    """Mean and unbiased covariance per row of integer weights, in one pass; sums are taken about `centre`."""
    d = len(centre)
    sums = torch.zeros(len(weights), d, dtype=torch.float64)
    products = torch.zeros(len(weights), d, d, dtype=torch.float64)
    start = 0
    for rows in table:
        centred = rows.double() - centre
        chosen = weights[:, start : start + len(rows)].double()
        sums += chosen @ centred
        for replicate, weight in enumerate(chosen):
            products[replicate].addmm_(centred.T, centred * weight[:, None])
        start += len(rows)
    results = []
    for total, shift, product in zip(weights.sum(dim=1).tolist(), sums, products, strict=True):
        mean = shift / total
        covariance = (product - total * torch.outer(mean, mean)) / (total - 1)
        results.append(GaussianStatistics(centre + mean, covariance, int(total)))
    return results


def _centred(estimate: float, replicates: Float[Tensor, " replicates"]) -> Interval:
    spread = np.percentile((replicates - replicates.mean()).numpy(), [2.5, 97.5])
    return Interval(estimate + float(spread[0]), estimate + float(spread[1]))
