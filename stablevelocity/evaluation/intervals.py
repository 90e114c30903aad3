"""How sure a metric is: bootstrap intervals, FID at infinitely many images, and FID between real sets.

The reference is taken as given (everybody compares with the same one); what is resampled are the generated images. All
functions take the same re-iterable tables of features as `fidelity` and hold a few (d, d) matrices at a time.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.evaluation.fidelity import (
    SPLITS,
    GaussianStatistics,
    Table,
    exponential_gain,
    frechet_distance,
    gaussian_statistics,
    inception_score,
    predictions,
    split_sizes,
)

MATRIX_BUDGET = 2**29
"""Bytes of (d, d) matrices that are held together."""


class Interval(NamedTuple):
    """95 % interval of a metric."""

    low: float
    high: float


def frechet_influence(table: Table, reference: GaussianStatistics) -> Float[Tensor, " n"]:
    """Influence function of FID at each image: N times what the image adds to FID, to first order, with mean 0.

    2 (x - m) . (m - m_r) + (x - m)^T (1 - T) (x - m), less its mean: the derivatives of FID by the mean m and by the
    covariance S, with T = R (R^T S R)^-1/2 R^T the transport map to the reference, whose covariance is R R^T.
    """
    statistics = gaussian_statistics(table)
    values, vectors = torch.linalg.eigh(reference.root.T @ statistics.covariance @ reference.root)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
    half = reference.root @ vectors[:, kept] * values[kept] ** -0.25
    parts = []
    for rows in table:
        centred = rows.double() - statistics.mean
        quadratic = centred.square().sum(dim=1) - (centred @ half).square().sum(dim=1)
        parts.append(2 * centred @ (statistics.mean - reference.mean) + quadratic)
    influence = torch.cat(parts)
    return influence - influence.mean()


def bootstrap_frechet(table: Table, reference: GaussianStatistics, *, replicates: int = 200, seed: int = 0) -> Interval:
    """Interval of FID over the generated images, by a linearised bootstrap: the influence function is resampled.

    FID of a resample is biased upwards a second time by as much as FID itself is, and its repeated images spread it too
    widely (docs/evaluation.md); to first order a resample moves FID by the mean of its images' influence. The interval
    says how far FID at this N moves from one set of N images to the next, not where FID at infinite N is (see
    `extrapolated_frechet`).
    """
    influence = frechet_influence(table, reference).numpy()
    rng, count = np.random.default_rng(seed), len(influence)
    moves = [influence[rng.integers(count, size=count)].mean() for _ in range(replicates)]
    return _centred(frechet_distance(gaussian_statistics(table), reference), torch.tensor(moves))


def bootstrap_inception_score(
    logits: Float[Tensor, "n classes"], *, splits: int = SPLITS, replicates: int = 200, seed: int = 0
) -> Interval:
    """Centred bootstrap interval of the Inception score, images resampled within each split."""
    rng = np.random.default_rng(seed)
    scores = torch.zeros(replicates, splits).double()
    for split, rows in enumerate(logits.split(split_sizes(len(logits), splits).tolist())):
        n = len(rows)
        times = torch.from_numpy(rng.multinomial(n, np.full(n, 1 / n), size=replicates)).double()
        negative_entropy, probability = predictions(rows)
        scores[:, split] = exponential_gain(times @ negative_entropy / n, times @ probability / n)
    return _centred(inception_score(logits, splits=splits).mean, scores.mean(dim=1))


def bootstrap_share(inside: Bool[Tensor, " n"], *, replicates: int = 1000, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of precision or recall, given which points lie inside.

    Both manifolds stay as they are: resampling a set with replacement doubles points, which would shrink its manifold.
    So recall's interval holds the choice of the reference images, not that of the generated ones.
    """
    n = len(inside)
    shares = np.random.default_rng(seed).binomial(n, float(inside.double().mean()), size=replicates) / n
    low, high = np.percentile(shares, [2.5, 97.5])
    return Interval(float(low), float(high))


def extrapolated_frechet(table: Table, reference: GaussianStatistics, *, seed: int = 0) -> tuple[float, float] | None:
    """(FID at infinitely many generated images, slope of FID against 1/N) (Chong & Forsyth 2020).

    FID is computed on 15 growing subsets, from a tenth of the images (at least twice the number of features, where FID
    is linear in 1/N) to all of them, averaged over 4 random orders of the images. The bias of the reference's own
    finite size stays. None for fewer than four times as many images as features.
    """
    statistics = gaussian_statistics(table)
    count = statistics.count or 0
    smallest = max(count // 10, 2 * len(statistics.mean))
    if smallest > count // 2:
        return None
    counts = np.unique(np.linspace(smallest, count, 15).round().astype(int))
    rng = np.random.default_rng(seed)
    group = max(1, MATRIX_BUDGET // (8 * len(statistics.mean) ** 2))  # covariances held at a time
    distances = torch.zeros(len(counts)).double()
    for _ in range(4):
        chosen = torch.from_numpy(rng.permutation(count)[None] < counts[:, None])
        sets = (each for part in chosen.split(group) for each in _statistics_of(part, table, statistics.mean))
        distances += torch.tensor([frechet_distance(each, reference) for each in sets], dtype=torch.float64) / 4
    slope, intercept = np.polyfit(1 / counts, distances.numpy(), 1)
    return float(intercept), float(slope)


class RealBaseline(NamedTuple):
    """FID between two disjoint halves of real images: what no generator can be expected to beat."""

    mean: float
    low: float
    high: float
    images: int
    """Images in each half."""


def real_baseline(table: Table, *, repeats: int = 10, seed: int = 0) -> RealBaseline:
    """FID of one random half of the real features against the other half; mean and range over `repeats` splits.

    With fewer images on either side it is higher.
    """
    statistics = gaussian_statistics(table)
    count = statistics.count or 0
    half = count // 2
    if half < 2:
        raise UserError(f"the baseline between two halves needs at least 4 real images, given {count}")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        rank = torch.from_numpy(rng.permutation(count))
        halves = torch.stack([rank < half, rank >= count - half])
        values.append(frechet_distance(*_statistics_of(halves, table, statistics.mean)))
    return RealBaseline(float(np.mean(values)), min(values), max(values), half)


def _statistics_of(
    times: Shaped[Tensor, "sets n"], table: Table, centre: Float[Tensor, " d"]
) -> list[GaussianStatistics]:
    """Mean and unbiased covariance of the images taken `times` times each, in one pass; sums are about `centre`."""
    d = len(centre)
    sums = torch.zeros(len(times), d).double()
    products = torch.zeros(len(times), d, d).double()
    start = 0
    for rows in table:
        centred = rows.double() - centre
        weights = times[:, start : start + len(rows)].double()
        sums += weights @ centred
        for product, weight in zip(products, weights, strict=True):
            product.addmm_(centred.T, centred * weight[:, None])
        start += len(rows)
    results = []
    for total, shift, product in zip(times.sum(dim=1).tolist(), sums, products, strict=True):
        mean = shift / total
        covariance = (product - total * torch.outer(mean, mean)) / (total - 1)
        results.append(GaussianStatistics(centre + mean, covariance, total))
    return results


def _centred(estimate: float, replicates: Float[Tensor, " replicates"]) -> Interval:
    low, high = np.percentile((replicates - replicates.mean()).numpy(), [2.5, 97.5])
    return Interval(estimate + float(low), estimate + float(high))
