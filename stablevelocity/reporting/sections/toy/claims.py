"""Does StableVM lower variance and error on the mixture, and does it differ from STF?"""

from typing import Any

import numpy as np

from stablevelocity.reporting.claims import Claim, Tables, Verdict, bounds
from stablevelocity.reporting.describe import count_text, number
from stablevelocity.reporting.source import Frame


def claims(tables: Tables) -> list[Claim]:
    error, variance = tables.table("toy_error"), tables.table("toy_variance")
    if error is None or variance is None:
        return []
    return [
        *_error(tables, error, "cfm"),
        *_error(tables, error, "stf"),
        *_ratio(tables, variance, "target"),
        *_ratio(tables, variance, "gradient"),
    ]


def _how(tables: Tables) -> dict[str, Any]:
    toy = tables.study.toy
    assert toy is not None
    return {
        "runs": "toy, objectives " + ", ".join(toy.objectives),
        "seeds": ", ".join(str(seed) for seed in toy.seeds),
        "updates": toy.updates,
        "samples": f"{toy.points:,} evaluation points",
        "truth": "closed-form velocity of the mixture",
    }


def _scope(tables: Tables) -> str:
    toy = tables.study.toy
    assert toy is not None
    return f"10-dimensional mixture, 14,634 parameters, {toy.updates:,} updates, {count_text(len(toy.seeds), 'seed')}"


def _all_times(low: Frame, high: Frame) -> Verdict:
    """Supported when every time's interval lies below 0, not supported when every one lies above."""
    if low.isna().any() or high.isna().any():
        return "inconclusive at this scale"
    if (high < 0).all():
        return "supported"
    return "not supported" if (low > 0).all() else "inconclusive at this scale"


def _error(tables: Tables, table: Frame, against: str) -> list[Claim]:
    column = f"change_from_{against}"
    rows = table[(table["objective"] == "stablevm") & table[column].notna()].sort_values("t")
    if rows.empty:
        return []
    name = against.upper()
    other = table[table["objective"] == against].set_index("t")["error"]
    relative = rows[column].to_numpy() / other[rows["t"]].to_numpy()
    parts = [f"t = {row.t:g}: {number(row.error)} against {number(other[row.t])}" for row in rows.itertuples()]
    verdict = _all_times(rows[f"{column}_low"], rows[f"{column}_high"])
    middle = rows.iloc[-1]
    texts = {
        "cfm": "Trained with the StableVM target, a network comes closer to the true velocity in the same updates.",
        "stf": "StableVM comes closer to the true velocity than STF, the earlier target from several references.",
    }
    return [
        Claim(
            id=f"toy-error-{against}",
            paper_claim=texts[against],
            measured=f"Squared error of StableVM and {name}, {int(middle['updates']):,} updates, {'; '.join(parts)}.",
            value=float(middle[column]),
            interval=bounds(float(middle[f"{column}_low"]), float(middle[f"{column}_high"])),
            unit=f"change of the squared error from {name} at t = {middle['t']:g}",
            verdict=verdict,
            rule="supported when the paired t-interval over seeds lies below 0 at every time",
            how=_how(tables),
            line=(
                f"Toy: StableVM comes nearer to the true velocity than {name}: squared error "
                f"{100 * relative.min():+.1f} to {100 * relative.max():+.1f} %, "
                f"{count_text(middle['seeds'], 'seed')}"
            ),
            headline=against == "cfm",
            scope=_scope(tables),
        )
    ]


def _ratio(tables: Tables, table: Frame, what: str) -> list[Claim]:
    column = f"{what}_variance_ratio"
    rows = table[(table["objective"] == "stablevm") & table[column].notna()].sort_values("t")
    # Where CFM has no variance there is no ratio.
    ratio = rows[column].replace([np.inf], np.nan).dropna()
    if ratio.empty:
        return []
    verdict: Verdict = (
        "supported" if ratio.max() < 1 else "not supported" if ratio.min() > 1 else "inconclusive at this scale"
    )
    middle = float(np.exp(np.log(ratio[ratio > 0]).mean()))
    note = {
        "target": "The StableVM target has a smaller variance than the CFM target at every time.",
        "gradient": "The smaller variance of the target carries over to the gradient.",
    }
    return [
        Claim(
            id=f"toy-{what}-variance",
            paper_claim=note[what],
            measured=f"Variance of the {what}, StableVM / CFM: {number(float(ratio.min()), 2)} to "
            f"{number(float(ratio.max()), 2)} over {len(ratio)} times.",
            value=middle,
            interval=None,
            unit="geometric mean of the ratio over times",
            verdict=verdict,
            rule="supported when the ratio is below 1 at every time, not supported when it is above 1 at every time",
            how=_how(tables),
            line=f"Toy: StableVM lowers the variance of the {what}: {number(middle, 2)} of CFM's (mean over t)",
            scope=_scope(tables),
        )
    ]
