"""Does StableVM lower variance and error on the mixture, and does it differ from STF?"""

from typing import Any

import numpy as np

from stablevelocity.reporting.claims import Claim
from stablevelocity.reporting.format import counted
from stablevelocity.reporting.names import OBJECTIVES
from stablevelocity.reporting.results import DataFrame, Results, Series
from stablevelocity.reporting.verdicts import by_interval


def claims(results: Results) -> list[Claim]:
    error, variance = results.table("toy_error"), results.table("toy_variance")
    own = variance[variance["objective"] == "stablevm"].sort_values("t")
    ratios = {what: own[f"{what}_variance_ratio"].replace(np.inf, np.nan).dropna() for what in ("target", "gradient")}
    others = [against for against in ("cfm", "stf") if error[f"change_from_{against}"].notna().any()]
    return [
        *(_error(results, error, against) for against in others),
        # Where CFM has no variance there is no ratio.
        *(_ratio(results, ratio, what) for what, ratio in ratios.items() if len(ratio)),
    ]


def _shared(results: Results) -> dict[str, Any]:
    toy: Any = results.study.toy
    how = {
        "runs": "toy, objectives " + ", ".join(toy.objectives),
        "seeds": ", ".join(str(seed) for seed in toy.seeds),
        "updates": toy.updates,
        "samples": f"{toy.points:,} evaluation points",
        "truth": "closed-form velocity of the mixture",
    }
    seeds = counted(len(toy.seeds), "seed")
    return {"how": how, "scope": f"10-dimensional mixture, 14,634 parameters, {toy.updates:,} updates, {seeds}"}


def _error(results: Results, table: DataFrame, against: str) -> Claim:
    """At every time, the error of StableVM minus that of another objective; the value is that at the last time."""
    change, low, high = (f"change_from_{against}{bound}" for bound in ("", "_low", "_high"))
    other = table[table["objective"] == against].set_index("t")["error"].rename("other")
    rows = table[table["objective"] == "stablevm"].dropna(subset=change).sort_values("t").join(other, on="t")
    last = rows.iloc[-1]
    facts = {"name": OBJECTIVES[against], "last": last, "relative": (rows[change] / rows["other"]).tolist()}
    facts["errors"] = list(zip(rows["t"], rows["error"], rows["other"], strict=True))
    verdict = by_interval(rows[low], rows[high], "below")
    bounds = last[low], last[high]
    return Claim(f"toy-error-{against}", last[change], verdict, bounds=bounds, facts=facts, **_shared(results))


def _ratio(results: Results, ratio: Series, what: str) -> Claim:
    middle = np.exp(np.log(ratio[ratio > 0]).mean())
    facts = {"what": what, "ratio": ratio.tolist(), "middle": middle}
    verdict = by_interval(ratio, ratio, "below", 1)
    return Claim(f"toy-{what}-variance", middle, verdict, facts=facts, **_shared(results))
