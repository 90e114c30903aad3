"""FID, sFID, Inception score, precision and recall, computed from features (docs/paper.md#imagenet).

Nothing here knows images or networks. A *table* of features is anything that can be iterated again and again
into chunks (n, d), in file order: a list of tensors, or a column of a feature store on disk. All sums are in
float64, and memory depends on d and on the chunk, not on the number of rows; only precision and recall need
all rows at once.

Conventions are those of the ADM evaluation suite (Dhariwal & Nichol 2021), by which ImageNet results are
published. One difference is deliberate: ADM computes the distances for precision and recall in half
precision, here they are float64. ADM's batch sizes bound memory and do not change a number, nor do ours.
"""

import functools
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stablevelocity.errors import UserError

Table = Iterable[Tensor]


@dataclass(frozen=True)
class GaussianStatistics:
    """Mean and covariance of features: all that FID knows of a set of images.

    `count` is the number of rows they were computed from, None when unknown (a published reference).
    """

    mean: Float[Tensor, " d"]
    covariance: Float[Tensor, "d d"]
    count: int | None = None

    @functools.cached_property
    def root(self) -> Float[Tensor, "d r"]:
        """R with R R^T = covariance, r its numerical rank.

        By the symmetric eigendecomposition. Eigenvalues below rounding (d eps times the largest) are taken as
        0: their square roots would be 1e-8, not 1e-16, and there are thousands of them in a covariance of
        fewer rows than features.
        """
        values, vectors = torch.linalg.eigh(self.covariance)
        largest = float(values[-1])
        kept = values > len(values) * torch.finfo(values.dtype).eps * max(largest, 0.0)
        return vectors[:, kept] * values[kept].sqrt()


class Moments:
    """Running mean and covariance of rows that arrive in chunks (Chan, Golub & LeVeque 1979), in float64."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | None = None
        self._scatter: Tensor | None = None

    def update(self, rows: Float[Tensor, "n d"]) -> None:
        """Take in a chunk. Raises UserError if it holds a value that is not finite."""
        if not len(rows):
            return
        rows = rows.double()
        if not bool(torch.isfinite(rows).all()):
            bad = int((~torch.isfinite(rows)).any(dim=1).sum())
            raise UserError(f"features: {bad} of the {len(rows)} rows from row {self.count} on hold NaN or infinity")
        mean = rows.mean(dim=0)
        centred = rows - mean
        scatter = centred.T @ centred
        if self._mean is None or self._scatter is None:
            self.count, self._mean, self._scatter = len(rows), mean, scatter
            return
        total = self.count + len(rows)
        shift = mean - self._mean
        self._scatter += scatter + torch.outer(shift, shift) * (self.count * len(rows) / total)
        self._mean += shift * (len(rows) / total)
        self.count = total

    def statistics(self) -> GaussianStatistics:
        """Mean and unbiased covariance (divisor N - 1). Raises UserError for fewer than two rows."""
        if self._mean is None or self._scatter is None or self.count < 2:
            raise UserError(f"a covariance needs at least 2 images, given {self.count}")
        return GaussianStatistics(self._mean.clone(), self._scatter / (self.count - 1), self.count)


def gaussian_statistics(table: Table) -> GaussianStatistics:
    """Mean and covariance of a table in one pass.

    Warns if there are no more rows than features: the covariance is then singular and FID, though defined, is
    dominated by its bias.
    """
    moments = Moments()
    for rows in table:
        moments.update(rows)
    statistics = moments.statistics()
    if moments.count <= len(statistics.mean):
        warnings.warn(
            f"{moments.count} images for {len(statistics.mean)} features: the covariance is singular and FID is "
            "strongly biased upwards",
            stacklevel=2,
        )
    return statistics


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """Fréchet distance |m_a - m_b|^2 + tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2 between two Gaussians.

    The last trace is the sum of the singular values of R_a^T R_b for any roots R R^T of the covariances. Taken
    that way nothing is square-rooted after the product, so singular covariances lose no digits, and no
    imaginary part can appear. Source: Heusel et al. 2017; Dowson & Landau 1982.
    """
    if a.mean.shape != b.mean.shape:
        raise UserError(f"the two sets have {len(a.mean)} and {len(b.mean)} features; they must agree")
    shift = a.mean - b.mean
    cross = torch.linalg.svdvals(a.root.T @ b.root).sum()
    return float(shift @ shift + a.covariance.trace() + b.covariance.trace() - 2 * cross)


class InceptionScore(NamedTuple):
    mean: float
    """Mean over the splits: the number that is published."""
    deviation: float
    """Standard deviation over the splits (divisor: their number)."""


def inception_score(logits: Table, *, splits: int = 10) -> InceptionScore:
    """exp(mean KL(p(y|x) || p(y))) per split of the rows **in file order**, then averaged (Salimans et al. 2016).

    Split i holds rows floor(i N / splits) to floor((i + 1) N / splits), as in ADM at 50,000 images (ten times
    5,000). Without shuffling: a sample sorted by class gets the lower score that ADM gives it. `logits` are
    ADM's when they leave out the bias of Inception's last layer.
    """
    sums = SplitSums.of(logits, splits)
    scores = (sums.negative_entropy / sums.count - sums.marginal_negative_entropy()).exp()
    return InceptionScore(float(scores.mean()), float(scores.std(correction=0)))


@dataclass
class SplitSums:
    """What the Inception score needs of each split, gathered in one pass."""

    count: Float[Tensor, " splits"]
    negative_entropy: Float[Tensor, " splits"]
    probability: Float[Tensor, "splits classes"]

    @staticmethod
    def of(logits: Table, splits: int) -> "SplitSums":
        total = sum(len(rows) for rows in logits)
        if total < splits:
            raise UserError(f"the Inception score needs at least one image per split ({splits}), given {total}")
        bounds = [split * total // splits for split in range(splits + 1)]
        edges = torch.tensor(bounds[1:])
        sums: SplitSums | None = None
        start = 0
        for rows in logits:
            logs = rows.double().log_softmax(dim=1)
            if not bool(torch.isfinite(rows).all()):
                raise UserError(f"logits: NaN or infinity among the {len(rows)} rows from row {start} on")
            probabilities = logs.exp()
            if sums is None:
                zeros = torch.zeros(splits, dtype=torch.float64)
                sums = SplitSums(zeros, zeros.clone(), zeros[:, None].repeat(1, rows.shape[1]))
            split = torch.searchsorted(edges, torch.arange(start, start + len(rows)), right=True)
            sums.count.index_add_(0, split, torch.ones(len(rows), dtype=torch.float64))
            sums.negative_entropy.index_add_(0, split, (probabilities * logs).sum(dim=1))
            sums.probability.index_add_(0, split, probabilities)
            start += len(rows)
        assert sums is not None
        return sums

    def marginal_negative_entropy(self) -> Float[Tensor, " splits"]:
        """sum_y p(y) log p(y) of each split."""
        marginal = self.probability / self.count[:, None]
        return torch.xlogy(marginal, marginal).sum(dim=1)


class Coverage(NamedTuple):
    """Which points lie in the other set's manifold; the means are precision and recall."""

    generated_inside: Bool[Tensor, " generated"]
    reference_inside: Bool[Tensor, " reference"]

    @property
    def precision(self) -> float:
        """Share of the generated images inside the manifold of the reference."""
        return float(self.generated_inside.double().mean())

    @property
    def recall(self) -> float:
        """Share of the reference images inside the manifold of the generated ones."""
        return float(self.reference_inside.double().mean())


def precision_recall(
    generated: Float[Tensor, "generated d"],
    reference: Float[Tensor, "reference d"],
    *,
    neighbours: int = 3,
    block_elements: int = 2**24,
) -> Coverage:
    """Improved precision and recall by brute force (Kynkäänniemi et al. 2019; ADM: k = 3).

    The manifold of a set is the union of the balls around its points that just reach the k-th nearest other
    point of the set; a point on the sphere counts as inside. Distances are float64 and made in blocks of at
    most `block_elements`, which bounds memory and changes nothing.
    """
    for name, rows in (("generated", generated), ("reference", reference)):
        if len(rows) <= neighbours:
            raise UserError(
                f"precision and recall with k = {neighbours} need more than {neighbours} {name} images, "
                f"given {len(rows)}"
            )
        if not bool(torch.isfinite(rows).all()):
            raise UserError(f"features of the {name} images hold NaN or infinity")
    # Distances do not change when both sets are shifted; rounding in |u|^2 + |v|^2 - 2 uv does.
    centre = reference.double().mean(dim=0)
    generated, reference = generated.double() - centre, reference.double() - centre
    generated_radii = _squared_radii(generated, neighbours, block_elements)
    reference_radii = _squared_radii(reference, neighbours, block_elements)
    generated_inside = torch.zeros(len(generated), dtype=torch.bool)
    reference_inside = torch.zeros(len(reference), dtype=torch.bool)
    rows = max(1, block_elements // len(reference))
    for start in range(0, len(generated), rows):
        end = start + rows
        squared = _squared_distances(generated[start:end], reference)
        generated_inside[start:end] = (squared <= reference_radii).any(dim=1)
        reference_inside |= (squared <= generated_radii[start:end, None]).any(dim=0)
    return Coverage(generated_inside, reference_inside)


def _squared_radii(points: Float[Tensor, "n d"], neighbours: int, block_elements: int) -> Float[Tensor, " n"]:
    """Squared distance of each point to its k-th nearest other point."""
    rows = max(1, block_elements // len(points))
    radii = []
    for start in range(0, len(points), rows):
        squared = _squared_distances(points[start : start + rows], points)
        # A point is no neighbour of itself; duplicates of it are.
        squared[torch.arange(len(squared)), torch.arange(start, start + len(squared))] = torch.inf
        radii.append(squared.topk(neighbours, dim=1, largest=False).values[:, -1])
    return torch.cat(radii)


def _squared_distances(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    squared = torch.addmm((b * b).sum(dim=1), a, b.T, alpha=-2)
    return squared.add_((a * a).sum(dim=1)[:, None]).clamp_(min=0)
