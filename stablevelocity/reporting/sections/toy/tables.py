"""The toy experiment in tables: error at the last update, variances, cost."""

import math

import pandas as pd

from stablevelocity.reporting.source import Frame, Source
from stablevelocity.reporting.statistics import difference, over_seeds


def error(source: Source) -> Frame:
    """Squared error to the exact velocity at the last update, by objective and time, and its change from CFM."""
    frame = source.csv("toy/error.csv")
    last = frame[frame["update"] == frame["update"].max()]
    rows = []
    for (objective, t), part in last.groupby(["objective", "t"], sort=False):
        estimate = over_seeds(part["error"].to_numpy())
        row = {
            "objective": objective,
            "t": t,
            "updates": int(frame["update"].max()),
            "seeds": estimate.count,
            "error": estimate.mean,
            "error_sd": estimate.deviation,
            "error_low": estimate.low,
            "error_high": estimate.high,
        }
        wide = last[last["t"] == t].pivot_table(index="objective", columns="seed", values="error")
        for against in ("cfm", "stf"):
            found = None
            if objective != against and against in wide.index:
                found = difference(wide, str(objective), against)
            row |= {
                f"change_from_{against}": found.mean if found else math.nan,
                f"change_from_{against}_low": found.paired_low if found else math.nan,
                f"change_from_{against}_high": found.paired_high if found else math.nan,
            }
        rows.append(row)
    return pd.DataFrame(rows)


def variance(source: Source) -> Frame:
    """Variance of target and gradient by objective and time, and its ratio to CFM's."""
    target = _mean(source.csv("toy/target_variance.csv"), "target_variance")
    gradient = _mean(source.csv("toy/gradient_variance.csv"), "gradient_variance")
    both = target.merge(gradient, on=["objective", "t"], how="outer")
    for name in ("target_variance", "gradient_variance"):
        cfm = both[both["objective"] == "cfm"].set_index("t")[name]
        both[f"{name}_ratio"] = both[name] / both["t"].map(cfm)
    return both


def _mean(frame: Frame, name: str) -> Frame:
    """Mean over seeds where there are several, with its t-interval."""
    rows = []
    for (objective, t), part in frame.groupby(["objective", "t"], sort=False):
        estimate = over_seeds(part["variance"].to_numpy())
        rows.append(
            {
                "objective": objective,
                "t": t,
                name: estimate.mean,
                f"{name}_sd": estimate.deviation,
                f"{name}_low": estimate.low,
                f"{name}_high": estimate.high,
            }
        )
    return pd.DataFrame(rows)


def cost(source: Source) -> Frame:
    """Seconds per step by the number of references, as measured."""
    return source.csv("toy/cost.csv")
