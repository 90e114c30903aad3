"""FID, sFID, Inception score, precision and recall, computed from features (docs/paper.md#imagenet).

Nothing here knows images or networks. A *table* of features is anything that can be iterated again and again into
chunks (n, d), in file order: a list of tensors, or a column of a feature store on disk. All sums are in float64. Memory
depends on d and on the chunk; only the Inception score, precision and recall need all rows at once.

Conventions are those of the ADM evaluation suite (Dhariwal & Nichol 2021), by which ImageNet results are published, but
for the distances of precision and recall: ADM's are in half precision, these exact to float64.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stablevelocity.errors import UserError

Table = Iterable[Tensor]
SPLITS = 10  # of the Inception score, as published
UNIT = 2.0**-24  # largest relative error of rounding to float32
BELOW, ABOVE = 1 - 4 * UNIT, 1 + 4 * UNIT  # rounded to float32, a number times these is not larger, not smaller
PAIRS = 128  # taken at a time


@dataclass(frozen=True)
class GaussianStatistics:
    """Mean and covariance of features: all that FID knows of a set of images."""

    mean: Float[Tensor, " d"]
    covariance: Float[Tensor, "d d"]
    count: int | None = None
    """Images behind them; None when unknown (a published reference)."""

    @functools.cached_property
    def root(self) -> Float[Tensor, "d r"]:
        """R with R R^T = covariance, r its numerical rank, by the symmetric eigendecomposition."""
        values, vectors = torch.linalg.eigh(self.covariance)
        # Eigenvalues below rounding are 0: their square roots would be 1e-8, not 1e-16, and a covariance of fewer rows
        # than features has thousands of them.
        kept = values > len(values) * torch.finfo(values.dtype).eps * max(float(values[-1]), 0.0)
        return vectors[:, kept] * values[kept].sqrt()

    @property
    def caution(self) -> str:
        """A line on a set of no more images than features; else empty."""
        if self.count is None or self.count > len(self.mean):
            return ""
        few = f"{self.count} images for {len(self.mean)} features"
        return f"{few}: the covariance is singular and FID is strongly biased upwards"


def gaussian_statistics(table: Table) -> GaussianStatistics:
    """Mean and unbiased covariance (divisor N - 1) of a table in one pass (Chan, Golub & LeVeque 1979).

    Raises UserError for fewer than two rows, or if a value is not finite.
    """
    count, mean, scatter = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for rows in table:
        if not len(rows):
            continue
        rows = rows.double()
        check_finite(rows, count)
        chunk_mean = rows.mean(dim=0)
        centred = rows - chunk_mean
        chunk_scatter = centred.T @ centred
        if count:
            total = count + len(rows)
            shift = chunk_mean - mean
            scatter += chunk_scatter + torch.outer(shift, shift) * (count * len(rows) / total)
            mean += shift * (len(rows) / total)
            count = total
        else:
            count, mean, scatter = len(rows), chunk_mean, chunk_scatter
    if count < 2:
        raise UserError(f"a covariance needs at least 2 images, given {count}")
    return GaussianStatistics(mean, scatter / (count - 1), count)


def check_finite(rows: Float[Tensor, "n d"], start: int = 0) -> None:
    """Raise UserError for values that are not finite; the first row is number `start` of its table."""
    bad = int((~torch.isfinite(rows)).any(dim=1).sum())
    if bad:
        raise UserError(f"features: {bad} of the {len(rows)} rows from row {start} on hold NaN or infinity")


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """Fréchet distance |m_a - m_b|^2 + tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2 between two Gaussians.

    The last trace is the sum of the singular values of R_a^T R_b for any roots R R^T of the covariances. That way
    nothing is square-rooted after the product, so singular covariances lose no digits, and no imaginary part can
    appear. A distance below the rounding of the traces is 0. Source: Heusel et al. 2017; Dowson & Landau 1982.
    """
    if a.mean.shape != b.mean.shape:
        raise UserError(f"the two sets have {len(a.mean)} and {len(b.mean)} features; they must agree")
    shift = a.mean - b.mean
    cross = torch.linalg.svdvals(a.root.T @ b.root).sum()
    spreads = a.covariance.trace(), b.covariance.trace()
    distance = float(shift @ shift + spreads[0] + spreads[1] - 2 * cross)
    rounding = len(shift) * torch.finfo(cross.dtype).eps * float(sum(spreads))
    return distance if distance > rounding else 0.0


class InceptionScore(NamedTuple):
    mean: float
    """Over the splits: the number that is published."""
    deviation: float
    """Over the splits, with their number as divisor."""


def inception_score(logits: Float[Tensor, "n classes"], *, splits: int = SPLITS) -> InceptionScore:
    """exp(mean KL(p(y|x) || p(y))) per split of the rows **in file order**, then averaged (Salimans et al. 2016).

    Split i holds rows floor(i N / splits) to floor((i + 1) N / splits), as in ADM at 50,000 images (ten times 5,000).
    Without shuffling: a sample sorted by class gets the lower score that ADM gives it. `logits` are ADM's when they
    leave out the bias of Inception's last layer.
    """
    sizes = split_sizes(len(logits), splits)
    negative_entropy, probability = predictions(logits)
    split = torch.arange(splits).repeat_interleave(sizes)
    negative_entropy = torch.zeros(splits).double().index_add_(0, split, negative_entropy) / sizes
    probability = torch.zeros(splits, logits.shape[1]).double().index_add_(0, split, probability) / sizes[:, None]
    scores = exponential_gain(negative_entropy, probability)
    return InceptionScore(float(scores.mean()), float(scores.std(correction=0)))


def split_sizes(count: int, splits: int) -> Int[Tensor, " splits"]:
    """Images in each split."""
    if count < splits:
        raise UserError(f"the Inception score needs at least one image per split ({splits}), given {count}")
    return torch.tensor([split * count // splits for split in range(splits + 1)]).diff()


def predictions(logits: Float[Tensor, "n classes"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n classes"]]:
    """sum_y p log p, and p, of each image."""
    check_finite(logits)
    logs = logits.double().log_softmax(dim=1)
    return (logs.exp() * logs).sum(dim=1), logs.exp()


def exponential_gain(
    negative_entropy: Float[Tensor, " *batch"], probability: Float[Tensor, "*batch classes"]
) -> Float[Tensor, " *batch"]:
    """Inception score from the means of sum_y p log p and of p over images."""
    return (negative_entropy - torch.xlogy(probability, probability).sum(dim=-1)).exp()


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
    block_elements: int = 2**21,
) -> Coverage:
    """Improved precision and recall by brute force (Kynkäänniemi et al. 2019; ADM: k = 3).

    The manifold of a set is the union of the balls around its points that just reach the k-th nearest other point of
    the set; a point on the sphere counts as inside. Exact in float64: of most pairs a bound in float32 says that they
    are too far apart to matter. It is made in blocks of at most `block_elements`.
    """
    for name, rows in (("generated", generated), ("reference", reference)):
        check_finite(rows)
        if len(rows) <= neighbours:
            need = f"precision and recall with k = {neighbours} need more than {neighbours} {name} images"
            raise UserError(f"{need}, given {len(rows)}")
    generated_radii = _squared_radii(generated, neighbours, block_elements)
    reference_radii = _squared_radii(reference, neighbours, block_elements)
    coverage = Coverage(*(torch.zeros(len(rows), dtype=torch.bool) for rows in (generated, reference)))
    covered = coverage.reference_inside
    others = _Centred.at(reference.mean(dim=0), reference)
    rows = max(1, block_elements // len(reference))
    blocks = zip(*(each.split(rows) for each in (generated, generated_radii, coverage.generated_inside)), strict=True)
    for points, radii, inside in blocks:
        lower, width = _Centred.at(others.centre, points).bounds(others)
        upper = lower + width
        inside |= (upper <= reference_radii.float() * BELOW).any(dim=1)
        covered |= (upper <= radii[:, None].float() * BELOW).any(dim=0)
        unknown = (lower <= reference_radii.float() * ABOVE) & ~inside[:, None]
        unknown |= (lower <= radii[:, None].float() * ABOVE) & ~covered
        i, j, squared = _exact(points, reference, unknown)
        inside[i[squared <= reference_radii[j]]] = True
        covered[j[squared <= radii[i]]] = True
    return coverage


def _squared_radii(points: Float[Tensor, "n d"], neighbours: int, block_elements: int) -> Float[Tensor, " n"]:
    """Squared distance of each point to its k-th nearest other point."""
    centred = _Centred.at(points.mean(dim=0), points)
    rows = max(1, block_elements // len(points))
    radii = []
    for start in range(0, len(points), rows):
        stop = min(start + rows, len(points))
        lower, width = centred.part(start, stop).bounds(centred)
        # A point is no neighbour of itself; duplicates of it are.
        lower[torch.arange(stop - start), torch.arange(start, stop)] = torch.inf
        nearest = lower.topk(neighbours, dim=1, largest=False).indices
        limit = (lower + width).gather(1, nearest).amax(dim=1, keepdim=True)
        i, _, squared = _exact(points[start:stop], points, lower <= limit)
        order = squared.argsort()
        order = order[i[order].argsort(stable=True)]  # by point, then by distance
        before = i.bincount().cumsum(dim=0) - i.bincount()
        radii.append(squared[order[before + neighbours - 1]])
    return torch.cat(radii)


class _Centred(NamedTuple):
    """Points in float32 less a centre near them, so that rounding in |u|^2 + |v|^2 - 2 uv is small."""

    centre: Float[Tensor, " d"]
    points: Float[Tensor, "n d"]
    squares: Float[Tensor, " n"]

    @classmethod
    def at(cls, centre: Float[Tensor, " d"], points: Float[Tensor, "n d"]) -> "_Centred":
        # Subtracted in the points' own precision or more: each difference is then right to a unit of its own size.
        points = (points.to(torch.promote_types(points.dtype, torch.float32)) - centre).float()
        return cls(centre, points, torch.linalg.vector_norm(points, dim=1, dtype=torch.float64).square())

    def part(self, start: int, stop: int) -> "_Centred":
        """Itself, where it is all of it."""
        whole = stop - start == len(self.points)
        return self if whole else _Centred(self.centre, self.points[start:stop], self.squares[start:stop])

    def products(self, other: "_Centred") -> Float[Tensor, "n m"]:
        if other is not self:
            return self.points @ other.points.T
        products = torch.empty(len(self.points), len(self.points))  # half of them, twice
        for start in range(0, len(self.points), 256):
            stop = start + 256
            products[start:stop, start:] = self.points[start:stop] @ self.points[start:].T
            products[stop:, start:stop] = products[start:stop, stop:].T
        return products

    def bounds(self, other: "_Centred") -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
        """Lower bounds of squared distances in float32, and how far above them the distances may be.

        A sum of d products of numbers u and v is off by d units of |u|^2 + |v|^2 at most, in any order.
        """
        share = (self.points.shape[1] + 32) * UNIT
        rows, columns = ((1 - share) * each.squares for each in (self, other))
        lower = self.products(other).mul_(-2).add_(columns.float()).add_(rows.float()[:, None])
        return lower, (2 * share * self.squares).float()[:, None] + (2 * share * other.squares).float()


def _exact(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], wanted: Bool[Tensor, "n m"]
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """Row and column of each wanted pair, and its squared distance in float64."""
    i, j = wanted.nonzero(as_tuple=True)
    pairs = zip(i.split(PAIRS), j.split(PAIRS), strict=True)
    squared = [(a[rows].double() - b[columns].double()).square().sum(dim=1) for rows, columns in pairs]
    return i, j, torch.cat([torch.zeros(0).double(), *squared])
