"""Where a model's velocity stops turning, and the grid of few calls that follows its long run best.

A step from sigma_i straight to sigma_j, taken on the long trajectory, ends beside it by

    e_ij = x_i + (sigma_j - sigma_i) v_i - x_j,

0 for an Euler run's own steps and larger the more the velocity turns between i and j. A second-order multistep solver
(DPM-Solver++ 2M, which UniPC is near to) draws a line through the clean pictures D = x - sigma v predicted at sigma_i
and at the level sigma_h where its step before began; in lambda = log((1 - sigma) / sigma) its error is

    e_hij = e_ij + (1 - sigma_j / sigma_i) (lambda_j - lambda_i) / (2 (lambda_i - lambda_h)) (D_i - D_h),

without that term for a first step, after a step from sigma = 1, and for the step to 0. A grid 0 < i < j < ... < N adds
up the errors of its steps, each carried on from sigma_j to the end. How much of an error arrives there is not known
without more calls; it is taken to grow or shrink as the state itself does, frequency by frequency, which is exact for
data of one mode whose frequencies are independent.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
import torch
from jaxtyping import Float
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.sampling.grid import thinned_indices
from stablevelocity.tuning.trajectory import Trajectory


@dataclass(frozen=True)
class Recommendation:
    """What `recommend` returns. Distances are PSNR in dB of the final state to the long run's, peak its range.

    `xi` and `low_steps` thin the long schedule as StableVS does; `grid` is a free choice of its levels, without the
    final 0. Per step of the long run: `turning`, the angle in radians between its velocity and the step's before
    (0 for the first); `clean_change`, the change of the predicted clean picture x - sigma v, as a share of the final
    state's size; `skip_error`, what leaving out the level after it costs (rms; 0 for the last).
    """

    calls: int
    xi: float
    low_steps: int
    grid: tuple[float, ...]
    expected_tuned: float
    expected_grid: float
    turning: tuple[float, ...]
    clean_change: tuple[float, ...]
    skip_error: tuple[float, ...]


def recommend(
    trajectories: Trajectory | Sequence[Trajectory],
    *,
    calls: int | None = None,
    loss_db: float | None = None,
) -> Recommendation:
    """From long runs alone, with no further network call: thinning and free grid of `calls` network calls.

    Or of the fewest calls whose free grid is expected to come as near as `loss_db` (PSNR, dB). Raises UserError for
    runs on different levels, of different shapes or by different solvers, and for calls outside 2 to N - 1.
    """
    runs = [trajectories] if isinstance(trajectories, Trajectory) else list(trajectories)
    if not runs or any((run.sigmas, run.multistep) != (runs[0].sigmas, runs[0].multistep) for run in runs):
        raise UserError("recommend: expected one or more trajectories, all on the same sigmas and by the same solver")
    if len(shapes := {tuple(run.states.shape[2:]) for run in runs}) > 1:
        raise UserError(f"recommend: trajectories of shapes {sorted(shapes)}; expected one shape")
    if (calls is None) == (loss_db is None):
        raise UserError(f"recommend: calls={calls}, loss_db={loss_db}; expected one of the two")
    paths = LongRuns(runs)
    steps = len(paths.sigmas) - 1
    if calls is not None and calls not in range(2, steps):
        raise UserError(f"recommend: calls={calls}; expected 2 to {steps - 1}, fewer than the long run's {steps}")
    best = paths.best_grids()
    if calls is None:
        assert loss_db is not None
        calls = next((n for n in range(2, steps) if paths.expected(best[n]) >= loss_db), None)
        if calls is None:
            raise UserError(
                f"recommend: loss_db={loss_db:g}; {steps - 1} calls of {steps} are expected to come "
                f"as near as {paths.expected(best[steps - 1]):.1f} dB"
            )
    thinnings = {high: thinned(steps, high, calls, paths.multistep) for high in range(1, calls)}
    # The solver's own steps decide, below xi too: `tune` offers them as well as StableVS's, and they are mostly better.
    high = max((n for n, path in thinnings.items() if path), key=lambda n: paths.expected(thinnings[n]))
    return Recommendation(
        calls=calls,
        # Halfway between two levels: no rounding of a scheduler's can put a level on the other side.
        xi=round((paths.sigmas[high - 1] + paths.sigmas[high]) / 2, 6),
        low_steps=calls - high,
        grid=tuple(paths.sigmas[i] for i in best[calls][:-1]),
        expected_tuned=paths.expected(thinnings[high], own=high),
        expected_grid=paths.expected(best[calls]),
        **paths.curves(),
    )


def thinned(steps: int, high: int, calls: int, multistep: bool) -> list[int]:
    """StableVS's grid rule as indices of levels: the first `high`, `calls - high` of the others, the end.

    Empty where no more others are left than that. (Of the schedulers only Euler's never uses the smallest sigma.)
    """
    if calls >= steps:
        return []
    places = np.arange(steps, 0, -1) / steps  # only their order counts
    xi = (steps - high + 0.5) / steps
    return [*thinned_indices(places, xi, calls - high, skip_smallest=not multistep), steps]


class LongRuns:
    """Several long runs on the same levels, pictures side by side."""

    def __init__(self, runs: Sequence[Trajectory]):
        self.sigmas, self.multistep = runs[0].sigmas, runs[0].multistep
        ends = torch.cat([run.states[-1].flatten(1) for run in runs])
        self._peak = float(ends.max() - ends.min())
        if not self._peak:
            raise UserError("recommend: all final values are equal, so PSNR, whose peak is their range, is undefined")
        # Levels first, pictures second, frequencies flat.
        self.x = torch.cat([_spectrum(run.states) for run in runs], dim=1)
        self.v = torch.cat([_spectrum(run.velocities) for run in runs], dim=1)
        power = self.x.square().mean(dim=1)
        self._carried = (power[-1] / power.clamp(min=1e-12)).sqrt()

    def error(self, i: int, j: int, before: int | None = None) -> Float[Tensor, "pictures values"]:
        """e_ij, or e_hij for h = `before`, as it arrives at the end."""
        error = self.x[i] + (self.sigmas[j] - self.sigmas[i]) * self.v[i] - self.x[j]
        weight = self._extrapolation(before, i, j)
        if before is not None and weight:
            error = error + weight * (self._clean(i) - self._clean(before))
        return self._carried[j] * error

    def _extrapolation(self, h: int | None, i: int, j: int) -> float:
        """The weight of D_i - D_h in e_hij."""
        if not self.multistep or h is None or self.sigmas[h] == 1 or self.sigmas[j] == 0:
            return 0.0
        before, here, after = (math.log((1 - self.sigmas[k]) / self.sigmas[k]) for k in (h, i, j))
        return (1 - self.sigmas[j] / self.sigmas[i]) * (after - here) / (2 * (here - before))

    def _clean(self, i: int) -> Float[Tensor, "pictures values"]:
        return self.x[i] - self.sigmas[i] * self.v[i]

    def expected(self, path: Sequence[int], own: int | None = None) -> float:
        """PSNR in dB that a grid's summed errors leave, mean over pictures; at most 100 (that of equal pictures).

        From its step `own` on, the steps are StableVS's (on this path: Euler's) in the place of the solver's.
        """
        total = torch.zeros_like(self.x[0])
        for k, (i, j) in enumerate(itertools.pairwise(path)):
            total += self.error(i, j, path[k - 1] if k and (own is None or k < own) else None)
        psnr = 10 * torch.log10(self._peak**2 / total.double().square().mean(dim=1))
        return float(psnr.clamp(max=100).mean())

    def best_grids(self) -> dict[int, list[int]]:
        """For each number of calls the grid of the least sum of squared errors, by dynamic programming.

        What is known of a grid so far is its last level, or its last two where errors depend on them.
        """
        cost = self._costs()
        known, steps = cost.ndim - 1, len(self.sigmas) - 1
        least, earlier, grids = np.full(cost.shape[1:], math.inf), [], {}
        least.flat[0] = 0  # at level 0, with no step before
        for calls in range(1, steps + 1):
            through = least[..., None] + cost
            earlier.append(through.argmin(axis=0))
            least = through.min(axis=0)
            path = [steps] if known == 1 else [steps, int(least[:, steps].argmin())]
            for chosen in reversed(earlier):
                path.append(int(chosen[tuple(path[: -known - 1 : -1])]))
            grids[calls] = path[calls::-1]
        return grids

    def _costs(self) -> np.ndarray:
        """Mean square of e_ij at [i, j], or of e_hij at [h, i, j], that of a first step at [0, 0, j]; else infinite.

        All errors that end at j are sums of the same few vectors: their products are enough.
        """
        levels = len(self.sigmas)
        cost = np.full((levels,) * (3 if self.multistep else 2), math.inf)
        for j, products in enumerate(self._products(), start=1):
            weights = np.zeros((j, 2 * j + 1))  # of x_0 .. x_j, v_0 .. v_(j-1)
            weights[:, j] = -1
            for i in range(j):
                weights[i, i], weights[i, j + 1 + i] = 1, self.sigmas[j] - self.sigmas[i]
            if not self.multistep:
                cost[:j, j] = _quadratic(weights, products)
                continue
            cost[0, 0, j] = _quadratic(weights[:1], products)[0]
            for h in range(j - 1):
                steps = weights[h + 1 :].copy()
                for i in range(h + 1, j):
                    share = self._extrapolation(h, i, j)
                    for k, sign in ((i, 1), (h, -1)):
                        steps[i - h - 1, k] += sign * share
                        steps[i - h - 1, j + 1 + k] -= sign * share * self.sigmas[k]
                cost[h, h + 1 : j, j] = _quadratic(steps, products)
        return cost

    def _products(self, at_once: int = 8192) -> list[np.ndarray]:
        """For each level j > 0 the mean products of x_0 .. x_j, v_0 .. v_(j-1), carried on from j."""
        total = [np.zeros((2 * j + 1, 2 * j + 1)) for j in range(1, len(self.sigmas))]
        for picture in range(self.x.shape[1]):
            for start in range(0, self.x.shape[2], at_once):
                part = slice(start, start + at_once)
                x, v = self.x[:, picture, part].double(), self.v[:, picture, part].double()
                for j, products in enumerate(total, start=1):
                    vectors = torch.cat([x[: j + 1], v[:j]]) * self._carried[j, part]
                    products += (vectors @ vectors.T).numpy()
        return [products / self.x[0].numel() for products in total]

    def curves(self) -> dict[str, tuple[float, ...]]:
        """`turning`, `clean_change` and `skip_error` of a Recommendation."""
        steps = len(self.sigmas) - 1
        cosine = torch.cosine_similarity(self.v[1:].double(), self.v[:-1].double(), dim=2)
        sigma = torch.tensor(self.sigmas)[:, None, None]
        clean = torch.cat([self.x[:-1] - sigma[:-1] * self.v, self.x[-1:]])
        change = (clean[1:] - clean[:-1]).square().mean((1, 2)).sqrt() / self.x[-1].square().mean().sqrt()
        skip = [float(self.error(i, i + 2).square().mean().sqrt()) for i in range(steps - 1)]
        turning = cosine.clamp(-1, 1).arccos().mean(dim=1)
        return {
            "turning": (0.0, *turning.tolist()),
            "clean_change": tuple(change.tolist()),
            "skip_error": (*skip, 0.0),
        }


def _quadratic(weights: np.ndarray, products: np.ndarray) -> np.ndarray:
    return np.einsum("ni,ij,nj->n", weights, products, weights, optimize=True)


def _spectrum(values: Float[Tensor, "levels batch *shape"]) -> Float[Tensor, "levels batch frequencies"]:
    """Orthonormal cosine transform over places: (..., C, [T,] H, W) all after the channels, tokens (..., L, C) over L.

    Plain vectors stay as they are.
    """
    places = {3: [], 4: [2]}.get(values.ndim, list(range(3, values.ndim)))
    if places:
        values = torch.from_numpy(scipy.fft.dctn(values.numpy(), axes=places, norm="ortho"))
    return values.flatten(2)
