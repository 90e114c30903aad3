"""How noisy the flow-matching target is at each time, and where it starts to be (docs/paper.md#variance).

V(t) = E || v_t(x_t | x_0) - v_t(x_t) ||^2. Both velocities are affine in x_0 with the same slope c(t), so

    V(t) = c(t)^2 E || x_0 - E[x_0 | x_t] ||^2,        c = alpha' - alpha sigma'/sigma,

and only the posterior mean is needed. Two estimators give it. `variance_curve` takes M given points as the whole data
distribution, as the paper does; near t = 0 such a distribution has one point for each mode, and the curve reports 0
where a continuous one has variance. `exact_variance_curve` knows the distribution, a Gaussian mixture, and has no such
bias. For a finite data set only the first exists: its curve is of the empirical distribution, and moves with M.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.gmm import GaussianMixture
from stablevelocity.interpolants import Interpolant, LinearPath
from stablevelocity.targets import exact_arithmetic

if TYPE_CHECKING:
    import pandas as pd

VectorField: TypeAlias = Literal["velocity", "score", "noise", "data"]
Progress: TypeAlias = Callable[[int, int], None]

# Rows of noise drawn at once. Fixed, so that the draws do not depend on the memory budget.
_NOISE_ROWS = 64

# On a CPU more rows at once are slower: their logits leave the cache.
_CPU_ROWS = 256


@dataclass(frozen=True, eq=False)
class VarianceCurve:
    """V at each time, from the squared deviations of N noised samples.

    `deviations` holds || target - its conditional mean ||^2 for each time and sample. `dimension` is d (the paper's
    figure shows mean/sqrt(d)); `references` is the number M of points in the distribution, None for a continuous one.
    """

    times: Float64[Tensor, " times"]
    deviations: Float[Tensor, "times samples"]
    dimension: int
    references: int | None

    @property
    def mean(self) -> Float64[Tensor, " times"]:
        """V(t)."""
        return self.deviations.double().mean(1)

    @property
    def q15(self) -> Float64[Tensor, " times"]:
        """15 % quantile of the squared deviation over samples."""
        return self.deviations.double().quantile(0.15, dim=1)

    @property
    def q85(self) -> Float64[Tensor, " times"]:
        """85 % quantile of the squared deviation over samples."""
        return self.deviations.double().quantile(0.85, dim=1)

    @property
    def standard_error(self) -> Float64[Tensor, " times"]:
        """Monte Carlo error of the mean, from the noised samples (the references are taken as given)."""
        return self.deviations.double().std(1) / math.sqrt(self.deviations.shape[1])

    def table(self) -> "pd.DataFrame":
        """One row for each time: t, mean, q15, q85, standard_error, dimension, references (0: continuous)."""
        import pandas as pd  # here, as nothing else of the library needs it

        columns = {"t": self.times, "mean": self.mean, "q15": self.q15, "q85": self.q85}
        columns["standard_error"] = self.standard_error
        frame = pd.DataFrame({name: value.numpy() for name, value in columns.items()})
        return frame.assign(dimension=self.dimension, references=self.references or 0)


def variance_curve(
    samples: Float[Tensor, "count *shape"],
    path: Interpolant | None = None,
    times: Float[Tensor, " times"] | Sequence[float] = (),
    vector_field: VectorField = "velocity",
    *,
    queries: int | None = None,
    generator: torch.Generator | None = None,
    memory_limit: int = 2**28,
    progress: Progress | None = None,
) -> VarianceCurve:
    """The paper's estimator: the M samples are the data distribution, each noised one among its own references.

    Cost for each time: two products of (queries, M) with (M, d) matrices. `queries` noises a random subset
    of that many samples (all by default) against all M references: the same curve with more Monte Carlo
    error. `memory_limit` bounds, in bytes, the temporaries beside one centred copy of the samples (with a
    floor of 64 rows of M weights). Draws do not depend on it. `progress(done, total)` hears of each chunk.

    The samples are centred first, so that the logits lose fewer digits. Half precision is widened to float32,
    without TF32 shortcuts; float64 stays. Raises UserError on fewer than two samples or times outside (0, 1].
    """
    grid = _times(times)
    count = len(samples)
    queries = count if queries is None else min(queries, count)
    if count < 2 or queries < 1:
        raise UserError(f"variance_curve: {count} samples, {queries} queries; expected at least 2 and 1")
    slopes = _slopes(path := path or LinearPath(), grid, vector_field)
    flat = samples.reshape(count, -1)
    points = flat.to(torch.promote_types(flat.dtype, torch.float32), copy=True)
    # Any point near the middle will do: V does not see a shift.
    points -= points.mean(0)
    chosen = torch.arange(count) if queries == count else torch.randperm(count, generator=generator)[:queries]
    rows = memory_limit // (points.element_size() * (2 * count + 4 * points.shape[1]))
    rows = min(rows, _CPU_ROWS) if points.device.type == "cpu" else rows
    rows = max(_NOISE_ROWS, rows // _NOISE_ROWS * _NOISE_ROWS)
    half_squares = torch.einsum("nd,nd->n", points, points) / 2
    deviations = torch.empty(len(grid), queries, dtype=points.dtype)
    for index, t in enumerate(grid.tolist()):
        alpha, sigma = float(path.alpha(t)), float(path.sigma(t))
        for start in range(0, queries, rows):
            with exact_arithmetic(points.device):
                own = points[chosen[start : start + rows].to(points.device)]
                x_t = own.mul(alpha).add_(_noise(own, generator), alpha=sigma)
                logits = torch.addmm(half_squares, x_t, points.T, beta=-((alpha / sigma) ** 2), alpha=alpha / sigma**2)
                own.addmm_(logits.softmax(1), points, alpha=-1)
                deviations[index, start : start + len(own)] = own.square_().sum(1).cpu()
            if progress:
                progress(index * queries + start + len(own), len(grid) * queries)
    return VarianceCurve(grid, deviations * (slopes**2)[:, None], points.shape[1], count)


def exact_variance_curve(
    mixture: GaussianMixture,
    path: Interpolant | None = None,
    times: Float[Tensor, " times"] | Sequence[float] = (),
    vector_field: VectorField = "velocity",
    *,
    queries: int = 10_000,
    generator: torch.Generator | None = None,
) -> VarianceCurve:
    """V of a Gaussian mixture from its closed-form posterior mean: no bias at any t, float64 throughout.

    `queries` fresh draws are noised at each time; only their number limits the precision.
    """
    grid = _times(times)
    slopes = _slopes(path := path or LinearPath(), grid, vector_field)
    deviations = torch.empty(len(grid), queries, dtype=torch.float64)
    for index, t in enumerate(grid.tolist()):
        x_0 = mixture.sample(queries, generator)
        x_t = path.interpolate(x_0, _noise(x_0, generator), t)
        deviations[index] = (x_0 - mixture.posterior_mean(x_t, t, path)).square().sum(1).cpu()
    return VarianceCurve(grid, deviations * (slopes**2)[:, None], mixture.dimension, None)


class SplitPoint(NamedTuple):
    """xi and its 95 % bootstrap interval over the noised samples."""

    xi: float
    low: float
    high: float


def split_point(curve: VarianceCurve, *, fraction: float = 0.01, resamples: int = 200, seed: int = 0) -> SplitPoint:
    """xi: the last time before the curve's peak at which V is 1 % of that peak.

    A rule for question 1 of docs/paper.md#open-questions.

    One number, relative to the curve's own peak, so the scale of the data and the vector V is divided by do not matter.
    Why 1 %: below xi one reference (of an empirical distribution) or one mode (of a mixture) holds nearly all of the
    posterior; V grows with the share of x_t for which two compete, so a small fraction of the peak marks where the
    effective number of them leaves 1 (1.01 to 1.04 on the mixtures of the paper's figure 1). Between grid times V is
    interpolated in its logarithm, floored at a millionth of the peak. 0 means that there is no low-variance regime on
    the grid: V never falls that low, as for the exact curve of a broad mixture.

    The interval covers the draw of the noised samples, not that of the references: for that, compare curves
    of disjoint halves of the data. Raises UserError for a grid that ends below 0.9 (the peak is not seen) and
    for a fraction outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise UserError(f"split_point: fraction {fraction:g}; expected between 0 and 1")
    if curve.times[-1] < 0.9:
        raise UserError(f"split_point: last time {float(curve.times[-1]):g}; expected a grid up to 0.9 or more")
    generator = torch.Generator().manual_seed(seed)
    values = curve.deviations.double()
    count = values.shape[1]
    means = torch.stack(
        [
            values @ torch.randint(count, (count,), generator=generator).bincount(minlength=count).double()
            for _ in range(resamples)
        ]
    )
    crossings = torch.tensor([_crossing(curve.times, mean / count, fraction) for mean in means], dtype=torch.float64)
    low, high = crossings.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return SplitPoint(_crossing(curve.times, curve.mean, fraction), low, high)


def _crossing(times: Tensor, mean: Tensor, fraction: float) -> float:
    peak = int(mean.argmax())
    below = (mean[:peak] <= fraction * mean[peak]).nonzero()
    if not len(below):
        return 0.0
    left = int(below[-1])
    log_share = (mean[left : left + 2] / mean[peak]).clamp_min(1e-6).log()
    step = (math.log(fraction) - log_share[0]) / (log_share[1] - log_share[0])
    return float(times[left] + step * (times[left + 1] - times[left]))


class GradientVariance(NamedTuple):
    """Of a loss's gradient over batches: trace of the covariance, the same for each parameter, and the
    squared norm of the mean gradient (both unbiased; the last can be negative when it is near 0).
    """

    trace: float
    per_parameter: float
    signal: float


def gradient_variance(
    loss: Callable[[], Float[Tensor, ""]], parameters: Sequence[Tensor], batches: int
) -> GradientVariance:
    """Trace of the covariance of d loss/d parameters over fresh batches (docs/paper.md#open-questions, question 2).

    `loss()` draws a batch and returns its loss; it is called `batches` times (at least 2). One running mean
    (Welford's), so memory is twice the parameters whatever the number of batches.
    """
    if batches < 2:
        raise UserError(f"gradient_variance: {batches} batches; expected at least 2")
    parameters = list(parameters)
    mean = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
    squares = 0.0
    for seen in range(1, batches + 1):
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss(), parameters)]).float()
        before = gradient - mean
        mean += before / seen
        squares += float(before.double() @ (gradient - mean).double())
    trace = squares / (batches - 1)
    return GradientVariance(trace, trace / len(mean), float(mean.double().square().sum()) - trace / batches)


def _times(times: Tensor | Sequence[float]) -> Tensor:
    grid = torch.as_tensor(times, dtype=torch.float64).cpu()
    if grid.ndim != 1 or not len(grid) or bool((grid <= 0).any() | (grid > 1).any() | (grid.diff() <= 0).any()):
        raise UserError("variance: times must be one or more, increasing, within (0, 1]")
    return grid


def _slopes(path: Interpolant, times: Tensor, vector_field: VectorField) -> Tensor:
    """Slope in x_0 of the conditional field at given x_t."""
    alpha, sigma = path.alpha(times), path.sigma(times)
    match vector_field:
        case "velocity":
            return path.alpha_dot(times) - alpha * path.sigma_dot(times) / sigma
        case "score":
            return alpha / sigma**2
        case "noise":
            return -alpha / sigma
        case "data":
            return torch.ones_like(times)
    raise UserError(f"vector_field {vector_field!r}; expected velocity, score, noise or data")


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal, drawn as float32 in blocks of fixed size on the generator's device."""
    device = like.device if generator is None else generator.device
    blocks = [
        torch.randn(min(_NOISE_ROWS, len(like) - start), like.shape[1], device=device, generator=generator)
        for start in range(0, len(like), _NOISE_ROWS)
    ]
    return torch.cat(blocks).to(like)
