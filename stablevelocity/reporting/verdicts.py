"""Verdicts on claims. None is set by hand: each follows from numbers by one of the rules here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stablevelocity.reporting.statistics import NAN, Estimate

Verdict = Literal[
    "supported", "contradicted", "equivalent", "open", "check of the implementation", "not tested at this scale"
]
MARKS: dict[str, str] = {
    "supported": "supported",
    "contradicted": "contradicted",
    "equivalent": "equivalent",
    "open": "open",
    "check of the implementation": "check",
    "not tested at this scale": "not tested",
}
"""Verdicts as the summary has them."""
Side = Literal["below", "above"]
ERROR = 0.05
"""Of a two-sided test, and of a test of equivalence."""


@dataclass(frozen=True)
class Outcome:
    """A verdict with its p-value (NaN: no test) and, where nothing was tested, the reason.

    `effect` is the estimate that decided: of several the one that supports the claim least. `bound` is what it was
    compared with.
    """

    verdict: Verdict
    p: float = NAN
    effect: Estimate | None = None
    reason: str = ""
    bound: float = NAN


def by_effect(
    effects: Estimate | Sequence[Estimate], side: Side, bound: float = 0.0, margin: float | None = None
) -> Outcome:
    """Verdict by the side of `bound` that 95 % intervals lie on: all on the claimed side, all on the other, or open.

    With a `margin`, equivalent where the 90 % intervals lie within it of `bound` (two one-sided tests). An effect
    without an interval, as from one seed, leaves the claim open. All effects must agree, so the largest p-value counts.
    """
    effects = [effects] if isinstance(effects, Estimate) else list(effects)
    below, above = (np.array([getattr(e, f"p_{way}")(bound) for e in effects]) for way in ("below", "above"))
    p_for, p_against = (below, above) if side == "below" else (above, below)
    weakest = effects[int(np.argmax(np.nan_to_num(p_for, nan=2.0)))]
    if margin is not None:
        p_equal = np.max([[e.p_below(bound + margin), e.p_above(bound - margin)] for e in effects], axis=1)
        if p_equal.max() < ERROR:
            return Outcome("equivalent", float(p_equal.max()), effects[int(p_equal.argmax())], bound=bound)
    p = 2 * min(p_for.max(), p_against.max(), 0.5)
    if not p < ERROR:
        return Outcome("open", NAN if np.isnan(p_for).any() else float(p), weakest, bound=bound)
    verdict: Verdict = "supported" if p_for.max() < p_against.max() else "contradicted"
    return Outcome(verdict, float(p), weakest, bound=bound)


def by_fact(holds: object) -> Outcome:
    """Verdict on a statement that the numbers meet or do not meet, without an interval."""
    return Outcome("supported" if bool(holds) else "contradicted")


def check() -> Outcome:
    """Of what must hold whatever nature does, and does hold: it says that the code is right, and no more."""
    return Outcome("check of the implementation")


def untested(reason: str) -> Outcome:
    """Of what this study has not the means to test."""
    return Outcome("not tested at this scale", reason=reason)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down p-values: below `ERROR` where a verdict stands among all those of the study; NaN stays."""
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    adjusted = np.full(len(p), NAN)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted
