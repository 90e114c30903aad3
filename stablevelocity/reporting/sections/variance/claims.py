"""Is there a low-variance regime, where does it end, and how much of it is the finite set of points?"""

from typing import Any

import numpy as np

from stablevelocity.reporting.claims import Claim
from stablevelocity.reporting.format import rough, whole
from stablevelocity.reporting.results import DataFrame, Results, Series
from stablevelocity.reporting.sections.variance.tables import SHOWN_TIMES, variance_column
from stablevelocity.reporting.statistics import Estimate, t_factor
from stablevelocity.reporting.verdicts import by_effect, by_fact, check, untested

TOLERANCE = {"rise": 0.015, "peak": 0.03}
"""Of figure 1 against the published plot: in t, and as a share of the peak."""
PAPER_POINTS = 10_000


def claims(results: Results) -> list[Claim]:
    table = results.table("variance").sort_values("dimension")
    empirical, exact = table[table["law"] == "empirical"], table[table["law"] == "exact"]
    mixture = empirical["source"].str.startswith("gmm")
    published = empirical[empirical["published_rise"].notna()]
    known = exact[exact["source"].str.startswith("gmm")]
    return [
        *([_two_regimes(results, empirical[~mixture], table[table["law"] == "noise"])] if not mixture.all() else []),
        *(_trained_on(results, row) for _, row in exact[exact["source"] == "latents"].iterrows()),
        *([_moves_with_dimension(results, empirical[mixture])] if mixture.sum() > 1 else []),
        *(_published(results, published, what) for what in TOLERANCE if len(published)),
        *([_finite_set(results, empirical, known)] if len(known) else []),
    ]


def _how(results: Results, rows: DataFrame, estimator: str = "posterior mean over the same samples") -> dict[str, Any]:
    return {
        "sources": ", ".join(rows["source"]),
        "samples": ", ".join(rows["samples"].map(whole)),
        "seed": results.study.variance.seed,
        "estimator": estimator,
    }


def _two_regimes(results: Results, data: DataFrame, noise: DataFrame) -> Claim:
    """Of the finite set of points. Where pure noise of the same covariance has two regimes too, they are no finding."""
    latents = data[data["source"] == "latents"]
    shown = (latents if len(latents) else data).iloc[-1]
    turns = noise.set_index("source")["split_low"].reindex(data["source"])
    holds = (data["split_low"] > 0).all()
    outcome = check() if holds and not (turns == 0).all() else by_fact(holds)
    facts = {"data": data.to_dict("records"), "noise": noise.to_dict("records"), "shown": shown}
    return Claim("two-regimes", outcome, _how(results, data), shown["split_point"], facts)


def _trained_on(results: Results, row: Series) -> Claim:
    """Training draws latents from a posterior per image: the distribution is a mixture, and its V exact."""
    how = _how(results, row.to_frame().T, "closed form of one Gaussian per image, as training samples them")
    return Claim("two-regimes-trained-on", by_fact(row["split_low"] > 0), how, row["least_of_peak"], {"row": row})


def _moves_with_dimension(results: Results, rows: DataFrame) -> Claim:
    errors = (rows["split_high"] - rows["split_low"]).to_numpy() / 2 / t_factor(np.inf)
    gaps = np.diff(rows["split_point"])
    steps = [Estimate(gap, error) for gap, error in zip(gaps, np.hypot(errors[1:], errors[:-1]), strict=True)]
    values = ", ".join(f"{rough(row.split_point)} at d = {row.dimension}" for row in rows.itertuples())
    outcome = by_effect(steps, "above")
    decides = outcome.effect.mean if outcome.effect else gaps.min()
    return Claim("split-moves-with-dimension", outcome, _how(results, rows), decides, {"values": values})


def _published(results: Results, rows: DataFrame, what: str) -> Claim:
    """Where the curves rise, or how high their peaks are, against the published plot."""
    ours, paper = rows["rise" if what == "rise" else "peak_scaled"], rows[f"published_{what}"]
    off = (ours - paper).abs() / (1 if what == "rise" else paper)
    outcome, fewest = by_fact(off.max() <= TOLERANCE[what]), rows["samples"].min()
    if outcome.verdict != "supported" and fewest < PAPER_POINTS:
        outcome = untested(f"{whole(fewest)} points, the paper {whole(PAPER_POINTS)}")
    pairs = list(zip(rows["source"], ours, paper, strict=True))
    facts = {"pairs": pairs, "worst": off.max(), "tolerance": TOLERANCE[what]}
    return Claim(f"figure1-{what}", outcome, _how(results, rows), off.max(), facts)


def _finite_set(results: Results, empirical: DataFrame, exact: DataFrame) -> Claim:
    sources = list(empirical.loc[empirical["source"].isin(exact["source"]), "source"])
    source = "gmm-100" if "gmm-100" in sources else sources[-1]
    rows = empirical[empirical["source"] == source]
    seen, true = rows.iloc[0], exact[exact["source"] == source].iloc[0]
    values = [(t, seen[variance_column(t)], true[variance_column(t)]) for t in SHOWN_TIMES]
    share = values[0][1] / values[0][2]
    facts = {"source": source, "samples": seen["samples"], "values": values}
    return Claim("low-variance-of-the-law", by_fact(share > 0.5), _how(results, rows), share, facts)
