"""Where the steps of a thinned schedule stand: the grid rule of StableVS (docs/paper.md#stablevs).

A base schedule is a strictly decreasing list of noise levels sigma (sigma = t on the linear path). Steps
above the split point xi are the base solver's own and are all kept; of the steps below, a few evenly spread.
"""

import numpy as np
from jaxtyping import Float

from stablevelocity.errors import UserError


def thinned_indices(
    sigmas: Float[np.ndarray, " steps"], xi: float, low_steps: int, *, skip_smallest: bool
) -> list[int]:
    """Indices of the base schedule that the thinned one keeps, in order.

    `sigmas` are the starting noise levels of the base steps, strictly decreasing, in (0, 1], without the
    final 0. All sigma >= xi are kept. Of the m below, `low_steps` at round(linspace(0, L, low_steps)) with
    L = m - 1, or m - 2 where `skip_smallest` (the released Euler scheduler never uses the smallest sigma).
    Where nothing is to be thinned (m <= low_steps) all m are kept. Halves round to even, as numpy rounds.
    """
    high = int(np.count_nonzero(sigmas >= xi))
    low = len(sigmas) - high
    if low <= low_steps:
        return list(range(len(sigmas)))
    last = low - 2 if skip_smallest else low - 1
    offsets = np.round(np.linspace(0, last, low_steps)).astype(int)
    return [*range(high), *(high + int(offset) for offset in offsets)]


def low_steps_for(calls: int, sigmas: Float[np.ndarray, " steps"], xi: float, scheduler: str) -> int:
    """How many steps below xi make `calls` in all. Raises UserError where those above xi are as many already."""
    high = int(np.count_nonzero(sigmas >= xi))
    if calls <= high:
        raise UserError(
            f"{scheduler}: calls={calls}, but {high} of {len(sigmas)} base steps stand at or above xi={xi:.4g}; "
            f"expected more than {high} calls, or a larger xi"
        )
    return calls - high


def require_flow_sigmas(sigmas: Float[np.ndarray, " steps"], scheduler: str) -> None:
    """Refuse a base schedule that is not one of noise levels on the linear path.

    Raises UserError unless `sigmas` decrease strictly within (0, 1].
    """
    if not (np.all(np.diff(sigmas) < 0) and sigmas[0] <= 1 and sigmas[-1] > 0):
        raise UserError(
            f"{scheduler} needs flow sigmas that decrease strictly within (0, 1], got "
            f"{len(sigmas)} values from {sigmas[0]:.4g} to {sigmas[-1]:.4g}"
        )
