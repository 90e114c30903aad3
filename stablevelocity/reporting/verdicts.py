"""Verdicts on claims. None is set by hand: each follows from numbers by a rule that stands beside it."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Verdict = Literal["supported", "not supported", "inconclusive at this scale"]
MARKS: dict[str, str] = {"supported": "yes", "not supported": "no", "inconclusive at this scale": "?"}
Side = Literal["below", "above"]


def by_interval(low: ArrayLike, high: ArrayLike, side: Side, bound: float = 0.0) -> Verdict:
    """Verdict by where 95 % intervals lie: all wholly on the claimed side of `bound`, all wholly on the other side, or
    neither. One interval or several; an unknown one (NaN, from one seed) is inconclusive.
    """
    below, above = bool(np.all(np.asarray(high) < bound)), bool(np.all(np.asarray(low) > bound))
    if not (below or above):
        return "inconclusive at this scale"
    return "supported" if below == (side == "below") else "not supported"


def by_fact(holds: object) -> Verdict:
    """Verdict on a statement that the numbers meet or do not meet, without an interval."""
    return "supported" if bool(holds) else "not supported"
