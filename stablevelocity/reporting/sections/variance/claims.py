"""Is there a low-variance regime, where does it end, and how much of it is the finite set of points?"""

from typing import Any

from stablevelocity.reporting.claims import Claim
from stablevelocity.reporting.format import rough, whole
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.variance.tables import SHOWN_TIMES, variance_column
from stablevelocity.reporting.verdicts import by_fact, by_interval

READ_OFF_TOLERANCE = 0.05


def claims(results: Results) -> list[Claim]:
    table = results.table("variance")
    empirical = table[table["law"] == "empirical"].sort_values("dimension")
    mixture = empirical["source"].str.startswith("gmm")
    published = empirical[empirical["published_rise"].notna()]
    exact = table[(table["law"] == "exact") & table["source"].isin(empirical["source"])]
    return [
        *([_two_regimes(results, empirical[~mixture])] if not mixture.all() else []),
        *([_moves_with_dimension(results, empirical[mixture])] if mixture.sum() > 1 else []),
        *([_published(results, published)] if len(published) else []),
        *([_finite_set(results, empirical, exact)] if len(exact) else []),
    ]


def _how(results: Results, rows: DataFrame) -> dict[str, Any]:
    return {
        "sources": ", ".join(rows["source"]),
        "samples": ", ".join(rows["samples"].map(whole)),
        "seed": results.study.variance.seed,
        "estimator": "posterior mean over the same samples (empirical distribution)",
    }


def _two_regimes(results: Results, data: DataFrame) -> Claim:
    latents = data[data["source"] == "latents"]
    shown = (latents if len(latents) else data).iloc[-1]
    bounds = shown["split_low"], shown["split_high"]
    verdict = by_fact((data["split_low"] > 0).all())
    facts = {"data": data.to_dict("records"), "shown": shown}
    return Claim("two-regimes", shown["split_point"], verdict, _how(results, data), bounds, facts)


def _moves_with_dimension(results: Results, rows: DataFrame) -> Claim:
    gaps = rows["split_low"].iloc[1:].to_numpy() - rows["split_high"].iloc[:-1].to_numpy()
    change = rows["split_point"].iloc[-1] - rows["split_point"].iloc[0]
    values = ", ".join(f"{rough(row.split_point)} at d = {row.dimension}" for row in rows.itertuples())
    verdict, facts = by_interval(gaps, gaps, "above"), {"values": values}
    return Claim("split-moves-with-dimension", change, verdict, _how(results, rows), facts=facts)


def _published(results: Results, rows: DataFrame) -> Claim:
    worst = (rows["rise"] - rows["published_rise"]).abs().max()
    facts = {"rows": rows.to_dict("records"), "worst": worst, "tolerance": READ_OFF_TOLERANCE}
    return Claim("figure1-rise", worst, by_fact(worst <= READ_OFF_TOLERANCE), _how(results, rows), facts=facts)


def _finite_set(results: Results, empirical: DataFrame, exact: DataFrame) -> Claim:
    sources = list(empirical.loc[empirical["source"].isin(exact["source"]), "source"])
    source = "gmm-100" if "gmm-100" in sources else sources[-1]
    rows = empirical[empirical["source"] == source]
    seen, true = rows.iloc[0], exact[exact["source"] == source].iloc[0]
    values = [(t, seen[variance_column(t)], true[variance_column(t)]) for t in SHOWN_TIMES]
    share = values[0][1] / values[0][2]
    facts = {"source": source, "samples": seen["samples"], "values": values}
    return Claim("low-variance-of-the-law", share, by_fact(share > 0.5), _how(results, rows), facts=facts)
