"""Where a model's velocity stops turning, and the grid of few calls that follows its long run best.

A step from sigma_i straight to sigma_j, taken on the long trajectory, ends beside it by

    e_ij = x_i + (sigma_j - sigma_i) v_i - x_j,

0 for an Euler run's own steps and larger the more the velocity turns between i and j. A grid 0 < i < j < ... < N adds
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
    skip_smallest: bool = True,
) -> Recommendation:
    """From long runs alone, with no further network call: thinning and free grid of `calls` network calls.

    Or of the fewest calls whose free grid is expected to come as near as `loss_db` (PSNR, dB). `skip_smallest` is the
    Euler scheduler's way to thin; False for DPM-Solver++ and UniPC, whose own steps are better than the Euler steps
    counted here: for them distances are pessimistic. Raises UserError for runs on different levels and for
    calls outside 2 to N - 1.
    """
    runs = [trajectories] if isinstance(trajectories, Trajectory) else list(trajectories)
    if not runs or any(run.sigmas != runs[0].sigmas for run in runs):
        raise UserError("recommend: expected one or more trajectories, all on the same sigmas")
    if (calls is None) == (loss_db is None):
        raise UserError(f"recommend: calls={calls}, loss_db={loss_db}; expected one of the two")
    paths = LongRuns(runs)
    steps = len(paths.sigmas) - 1
    if calls is not None and not 2 <= calls < steps:
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
    high = max(
        (n for n in range(1, calls) if thinned(steps, n, calls, skip_smallest)),
        key=lambda n: paths.expected(thinned(steps, n, calls, skip_smallest)),
    )
    return Recommendation(
        calls=calls,
        # Halfway between two levels: no rounding of a scheduler's can put a level on the other side.
        xi=round((paths.sigmas[high - 1] + paths.sigmas[high]) / 2, 6),
        low_steps=calls - high,
        grid=tuple(paths.sigmas[i] for i in best[calls][:-1]),
        expected_tuned=paths.expected(thinned(steps, high, calls, skip_smallest)),
        expected_grid=paths.expected(best[calls]),
        **paths.curves(),
    )


def thinned(steps: int, high: int, calls: int, skip_smallest: bool) -> list[int]:
    """StableVS's grid rule as indices of levels: the first `high`, `calls - high` of the others, the end.

    Empty where no more others are left than that.
    """
    if calls >= steps:
        return []
    places = np.arange(steps, 0, -1) / steps  # only their order counts
    xi = (steps - high + 0.5) / steps
    return [*thinned_indices(places, xi, calls - high, skip_smallest=skip_smallest), steps]


class LongRuns:
    """Several long runs on the same levels, pictures side by side."""

    def __init__(self, runs: Sequence[Trajectory]):
        self.sigmas = runs[0].sigmas
        ends = torch.cat([run.states[-1].flatten(1) for run in runs])
        self._peak = float(ends.max() - ends.min())
        # Levels first, pictures second, frequencies flat.
        self.x = torch.cat([_spectrum(run.states) for run in runs], dim=1)
        self.v = torch.cat([_spectrum(run.velocities) for run in runs], dim=1)
        power = self.x.square().mean(dim=1)
        self._carried = (power[-1] / power.clamp(min=1e-12)).sqrt()

    def error(self, i: int, j: int) -> Float[Tensor, "pictures values"]:
        """e_ij as it arrives at the end."""
        return self._carried[j] * (self.x[i] + (self.sigmas[j] - self.sigmas[i]) * self.v[i] - self.x[j])

    def expected(self, path: Sequence[int]) -> float:
        """PSNR in dB that a grid's summed errors leave, mean over pictures; at most 100 (that of equal pictures)."""
        total = sum((self.error(i, j) for i, j in itertools.pairwise(path)), torch.zeros_like(self.x[0]))
        psnr = 10 * torch.log10(self._peak**2 / total.double().square().mean(dim=1))
        return float(psnr.clamp(max=100).mean())

    def best_grids(self) -> dict[int, list[int]]:
        """For each number of calls the grid of the least sum of squared errors, by dynamic programming."""
        steps = len(self.sigmas) - 1
        cost = np.full((steps, steps + 1), math.inf)
        for i in range(steps):
            for j in range(i + 1, steps + 1):
                cost[i, j] = float(self.error(i, j).double().square().mean())
        least, before = [cost[0]], [np.zeros(steps + 1, dtype=int)]
        for _ in range(1, steps):
            through = least[-1][:steps, None] + cost
            before.append(through.argmin(axis=0))
            least.append(through.min(axis=0))
        grids = {}
        for calls in range(1, steps + 1):
            path = [steps]
            for earlier in reversed(before[:calls]):
                path.append(int(earlier[path[-1]]))
            grids[calls] = path[::-1]
        return grids

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


def _spectrum(values: Float[Tensor, "levels batch *shape"]) -> Float[Tensor, "levels batch frequencies"]:
    """Orthonormal cosine transform over places: (..., C, [T,] H, W) all after the channels, tokens (..., L, C) over L.

    Plain vectors stay as they are.
    """
    places = {3: [], 4: [2]}.get(values.ndim, list(range(3, values.ndim)))
    if places:
        values = torch.from_numpy(scipy.fft.dctn(values.numpy(), axes=places, norm="ortho"))
    return values.flatten(2)
