"""Does StableVM lower variance and error on the mixture, and does it differ from STF?"""

from typing import Any

import numpy as np

from stablevelocity.reporting.claims import Claim
from stablevelocity.reporting.format import counted, plain
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.statistics import Estimate, over_seeds
from stablevelocity.reporting.verdicts import by_effect

MARGIN = 0.02
"""Errors of StableVM and STF that differ by less count as equal."""


def claims(results: Results) -> list[Claim]:
    table = results.table("toy_runs")
    ours = table[table["objective"] == "stablevm"]
    if ours.empty:
        return []
    made = _against_cfm(results, table) if "cfm" in set(table["objective"]) else []
    if "stf" in set(table["objective"]):
        made.append(_against_stf(results, table))
    measures = [what for what in ("target", "gradient") if ours.loc[ours["measure"] == what, "cfm"].notna().any()]
    return [*made, *(_variance(results, ours[ours["measure"] == what], what) for what in measures)]


def _shared(results: Results) -> dict[str, Any]:
    toy: Any = results.study.toy
    how = {
        "runs": "toy, objectives " + ", ".join(toy.objectives),
        "seeds": ", ".join(str(seed) for seed in toy.seeds),
        "shared by the objectives of a seed": "initial weights, t, noise and references; not which reference is noised",
        "updates": toy.updates,
        "samples": f"{toy.points:,} evaluation points",
        "truth": "closed-form velocity of the mixture",
    }
    seeds = counted(len(toy.seeds), "seed")
    return {"how": how, "scope": f"10-dimensional mixture, 14,634 parameters, {toy.updates:,} updates, {seeds}"}


def _changes(table: DataFrame, against: str) -> dict[float, Estimate]:
    """By time: relative change of the squared error of StableVM from another objective, paired by seed."""
    error = table[table["measure"] == "error"].pivot_table(index=["t", "seed"], columns="objective", values="value")
    change = (error["stablevm"] / error[against] - 1).dropna()
    return {t: over_seeds(part) for t, part in change.groupby("t")}


def _against_cfm(results: Results, table: DataFrame) -> list[Claim]:
    """One claim for each time; the summary tells the one that supports the paper least."""
    changes = _changes(table, "cfm")
    least = max(changes, key=lambda t: changes[t].p_below(0))
    made = []
    for t, change in changes.items():
        facts = {"t": t, "times": len(changes)}
        name, outcome = f"toy-error-cfm-{plain(t)}", by_effect(change, "below")
        told = {"text": "toy-error-cfm", "headline": t == least}
        made.append(Claim(name, outcome, value=change.mean, facts=facts, **told, **_shared(results)))
    return made


def _against_stf(results: Results, table: DataFrame) -> Claim:
    """A difference either way would be a verdict on the paper's remark that STF is biased."""
    changes = _changes(table, "stf")
    outcome = by_effect(list(changes.values()), "below", margin=MARGIN)
    facts = {"changes": [(t, change.mean, *change.bounds(0.9)) for t, change in changes.items()], "margin": MARGIN}
    decided = outcome.effect.mean if outcome.effect else np.nan
    return Claim("toy-error-stf", outcome, value=decided, facts=facts, **_shared(results))


def _variance(results: Results, rows: DataFrame, what: str) -> Claim:
    """StableVM's variance over CFM's, each integrated over t, as the loss sees it; paired by seed."""
    totals = rows.sort_values("t").groupby("seed")[["t", "value", "cfm"]]
    ratio = over_seeds([np.trapezoid(one["value"], one["t"]) / np.trapezoid(one["cfm"], one["t"]) for _, one in totals])
    name = f"toy-{what}-variance"
    facts = {"what": what, "times": rows["t"].nunique()}
    return Claim(name, by_effect(ratio, "below", 1), value=ratio.mean, facts=facts, **_shared(results))
