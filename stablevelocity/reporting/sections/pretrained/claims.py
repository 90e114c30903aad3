"""The paper's claims about StableVS on pretrained models, tested on this study's pictures."""

from stablevelocity.reporting.claims import Claim
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.statistics import over_clusters
from stablevelocity.reporting.verdicts import Side, by_effect, check
from stablevelocity.study.pretrained_settings import SOLVERS

SCORE_MARGIN = 0.02
"""Scores that differ by less count as equal."""
MEASURES: dict[str, tuple[str, str, Side]] = {
    "short": ("short", "psnr", "above"),
    "ssim": ("short", "ssim", "above"),
    "flips": ("short", "flips", "below"),
    "score": ("long", "score", "above"),
    "control": ("control", "psnr", "above"),
}
"""By the claim's name: the arm compared with, the measure, and the side that the paper claims."""


def claims(results: Results) -> list[Claim]:
    """For each family and base solver: StableVS against as many base steps, the long run, and its own grid."""
    pairs, tables = results.table("pretrained_pairs"), (results.table("table4"), results.table("table5"))
    rows = [row for table in tables if table is not None for _, row in table.iterrows() if row["kind"] == "stablevs"]
    made = []
    for row in rows:
        own = pairs[(pairs["family"] == row["family"]) & (pairs["arm"] == row["arm"])]
        main = SOLVERS[row["family"]][0] == row["solver"]
        name = row["family"] if main else f"{row['family']}-{row['solver']}"
        how = {"family": row["family"], "solver": row["solver"], "steps": row["steps"], "pictures": row["pictures"]}
        made += [_claim(f"stablevs-{name}", kind, own, how, main) for kind in MEASURES]
    return [claim for claim in made if claim]


def _claim(name: str, kind: str, pairs: DataFrame, how: dict, main: bool) -> Claim | None:
    """Paired by picture; pictures of one prompt count as one."""
    against, measure, side = MEASURES[kind]
    pairs = pairs[pairs["against"] == against].dropna(subset=measure)
    if pairs.empty:
        return None
    effect = over_clusters(pairs[measure], pairs["prompt"])
    equal = kind == "control" and not pairs[measure].any()
    outcome = by_effect(effect, side, margin=SCORE_MARGIN if kind == "score" else None)
    facts = {"family": how["family"], "solver": how["solver"], "prompts": pairs["prompt"].nunique(), "equal": equal}
    facts["margin"] = SCORE_MARGIN
    headline = main and kind == "short"
    how = how | {"prompts": facts["prompts"]}
    text = f"pretrained-{kind}"
    return Claim(f"{name}-{kind}", check() if equal else outcome, how, effect.mean, facts, text, headline=headline)
