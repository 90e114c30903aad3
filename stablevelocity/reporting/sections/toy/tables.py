"""The toy experiment in tables: error at the last update, variances, cost."""

import math

import pandas as pd

from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.spec import LAYOUT
from stablevelocity.reporting.statistics import difference, summary

BY = ["objective", "t"]


def toy_error(results: Results) -> DataFrame:
    """Squared error to the exact velocity at the last update, by objective and time; its change from CFM and STF."""
    frame = results.csv(LAYOUT.toy("error"))
    last = frame[frame["update"] == frame["update"].max()]
    table = summary(last, BY, "error", "error")
    table.insert(2, "updates", frame["update"].max())
    table.insert(3, "seeds", last.groupby(BY, sort=False).size().to_numpy())
    for against in ("cfm", "stf"):
        names = [f"change_from_{against}{bound}" for bound in ("", "_low", "_high")]
        table[names] = [_change(last, row.objective, row.t, against) for row in table.itertuples()]
    return table


def _change(last: DataFrame, objective: str, t: float, against: str) -> tuple[float, float, float]:
    """Mean over seeds of the error of an objective minus that of another, with its paired interval."""
    values = last[last["t"] == t].pivot_table(index="objective", columns="seed", values="error")
    change = difference(values, objective, against) if objective != against else None
    return (change.paired.mean, *change.paired.bounds()) if change else (math.nan, math.nan, math.nan)


def toy_variance(results: Results) -> DataFrame:
    """Variance of target and gradient by objective and time, and its ratio to CFM's."""
    names = ("target_variance", "gradient_variance")
    target, gradient = (summary(results.csv(LAYOUT.toy(name)), BY, "variance", name) for name in names)
    both: DataFrame = pd.merge(target, gradient, on=BY, how="outer")
    for name in names:
        cfm = both[both["objective"] == "cfm"].set_index("t")[name]
        both[f"{name}_ratio"] = both[name] / both["t"].map(cfm)
    return both


def toy_runs(results: Results) -> DataFrame:
    """What the claims are computed from: measure, objective, seed, t, value, and CFM's beside it as `cfm`.

    Measures: error (at the last update), target (variance), gradient (variance). CFM's value is that of the same seed;
    for the target of the very same samples.
    """
    error = results.csv(LAYOUT.toy("error"))
    parts = {"error": error[error["update"] == error["update"].max()].rename(columns={"error": "value"})}
    for measure in ("target", "gradient"):
        parts[measure] = results.csv(LAYOUT.toy(f"{measure}_variance")).rename(columns={"variance": "value"})
    keys = ["seed", "t"]
    for measure, part in parts.items():
        cfm = part[part["objective"] == "cfm"].set_index(keys)["value"].rename("cfm")
        parts[measure] = part.join(cfm, on=keys).assign(measure=measure)
    parts["target"]["cfm"] = parts["target"]["value"] + parts["target"]["removed"]
    return pd.concat(parts.values())[["measure", "objective", "seed", "t", "value", "cfm"]]


def toy_cost(results: Results) -> DataFrame:
    """Seconds per step by the number of references, as measured."""
    return results.csv(LAYOUT.toy("cost"))
