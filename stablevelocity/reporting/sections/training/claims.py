"""Comparisons between arms by FID, with and without guidance; where the alignment loss is high."""

import math
from typing import Any

from stablevelocity.reporting.claims import Claim
from stablevelocity.reporting.describe import decoder_text, sampler_text
from stablevelocity.reporting.format import interval, listed, percent, signed
from stablevelocity.reporting.results import DataFrame, Results, Series
from stablevelocity.reporting.sections.training import guided
from stablevelocity.reporting.statistics import Estimate, over_seeds
from stablevelocity.reporting.verdicts import Side, by_effect, untested
from stablevelocity.study.methods import find

CLAIMED = (
    "stablevm",
    "stablevm-unlabelled",
    "repa",
    "repa-low",
    "repa-high",
    "repa-stable",
    "irepa-stable",
    "reg-stable",
)
"""Comparisons of which the paper says that the first arm has the lower FID; with repa-high the higher one."""
MARGIN = 0.1
"""Change of FID, as a share, within which two arms train equally well; the same for every comparison."""
GUIDED = ("repa-stable", "repa-stable-gain")
"""What table 1 compares, or else the nearest to it that a study has."""
BANKED = ("stablevm", "repa-stable", "repa-stable-gain")
"""Comparisons whose first arm sees the same references again and again: is its gain more than memory of them?"""
LEFT = 0.5
"""Of what the network's alignment gains over the label alone: the share that may be left above xi."""


def claims(results: Results) -> list[Claim]:
    table, curves = results.table("differences"), results.table("alignment")
    fid = table[table["metric"] == "fid"].sort_values("step")
    last = fid.groupby(["sampler", "comparison"]).tail(1).set_index(["sampler", "comparison"])
    main = results.study.sampling.main
    names = [name for name in CLAIMED if (main, name) in last.index]
    if "repa-stable" not in names and (main, "repa-stable-gain") in last.index:
        names.append("repa-stable-gain")
    made = [_comparison(results, name, name, last.loc[main, name]) for name in names]
    unlabelled = [key for key in last.index if key[1] == "stablevm-unlabelled"]
    for sampler, name in unlabelled[: "stablevm-unlabelled" not in names]:
        made.append(_comparison(results, name, name, last.loc[sampler, name]))  # no label: a sampler of its own
    if (main, "stablevm-stf") in last.index:
        made.append(_comparison(results, "stablevm-stf", "stablevm-stf", last.loc[main, "stablevm-stf"]))
    made += _held_out(results, table[table["sampler"] == main], [name for name in names if name in BANKED])
    of_guided = [(sampler, name) for sampler in guided(results.study) for name in GUIDED]
    for key in [key for key in of_guided if key in last.index][:1]:
        made.append(_comparison(results, "guided", key[1], last.loc[key]))
    if results.study.gradient_variance:
        made.append(_gradients(results, results.table("gradient_variance")))
    return made if curves is None else [*made, *_alignment(results, curves)]


def _comparison(results: Results, claim: str, name: str, row: Series) -> Claim:
    """Where neither side is found: equivalent within `MARGIN` of the other arm's FID, or open."""
    study = results.study
    side: Side = "above" if name == "repa-high" else "below"
    sampler_name = row.name[0]
    effect = Estimate(row["difference"], row["standard_error"], max(row["freedom"], 1))
    one_seed = row["low"] != row["low"]
    facts = {
        "row": row,
        "side": side,
        "arms": f"{study.arms[row['arm']].label} against {study.arms[row['against']].label}",
        "change": f"FID {signed(row['difference'])} ({percent(row['relative'], 0)})",
        "known": "no interval from one seed" if one_seed else f"95 % {interval(row['low'], row['high'])}",
        "chosen": "; ".join(f"{setting}, {how}" for setting, how in study.chosen_by_fid.items()),
    }
    outcome = by_effect(effect, side)
    if outcome.verdict == "open" and row["relative"]:
        outcome = by_effect(effect, side, margin=MARGIN * row["difference"] / row["relative"])
    return Claim(claim, outcome, _how(results, row, sampler_name), row["difference"], facts | {"margin": MARGIN})


def _how(results: Results, row: Series, sampler_name: str) -> dict[str, Any]:
    study, sampler = results.study, results.study.sampler(sampler_name)
    return {
        "runs": f"{row['arm']}, {row['against']}",
        "seeds": row["seed_list"].split(" ", 1)[1],
        "shared by the arms of a seed": "initial weights, t and noise of training, noise and labels of sampling, and "
        "but for StableVM beside CFM the training images and labels",
        "training steps": row["step"],
        "sampler": f"{sampler_name}: {sampler_text(sampler)}",
        "solver": sampler.solver,
        "steps": sampler.steps,
        "guidance": sampler.guidance,
        "decoder": decoder_text(study),
        "samples": row["images"],
        "features": study.evaluation.extractor,
    }


def _held_out(results: Results, table: DataFrame, names: list[str]) -> list[Claim]:
    """FID against images that nothing was trained on, for the comparison of the first of `names`."""
    rows = table[table["comparison"].isin(names[:1])].sort_values("step").groupby("metric").tail(1).set_index("metric")
    if not {"fid_heldout", "nearest_ratio"} <= set(rows.index):
        return []
    row, ratio = rows.loc["fid_heldout"], rows.loc["nearest_ratio"]
    effect = Estimate(row["difference"], row["standard_error"], max(row["freedom"], 1))
    arms = f"{results.study.arms[row['arm']].label} against {results.study.arms[row['against']].label}"
    ratios = ratio["difference"] + ratio["difference"] / ratio["relative"], ratio["difference"] / ratio["relative"]
    facts = {"arms": arms, "row": row, "ours": ratios[0], "theirs": ratios[1]}
    return [Claim("held-out", by_effect(effect, "below"), _how(results, row, row["sampler"]), row["difference"], facts)]


def _gradients(results: Results, table: DataFrame) -> Claim:
    """The ratio of variances of the gradient at each kept step of the runs that are measured."""
    ratios = [Estimate(row.ratio, row.ratio_error, row.batches - 1) for row in table.itertuples()]
    outcome = by_effect(ratios, "below", 1.0)
    decided = outcome.effect.mean if outcome.effect else math.nan
    how = {
        "runs": listed(table["run"].unique()),
        "training steps": listed(table["step"].unique()),
        "samples": f"{table['batches'].max()} batches, the same x_t for both targets",
    }
    facts = {"ratios": table.to_dict("records"), "several": table["run"].nunique() > 1}
    return Claim("gradient-variance", outcome, how, decided, facts)


def _alignment(results: Results, table: DataFrame) -> list[Claim]:
    """What of the aligned network's gain over the label is left above xi, in the arm that aligns everywhere."""
    study = results.study
    arm = find(study, "REPA", regimes=("whole", "low (soft)", "low (hard cut)"))
    arm = arm or table["arm"].iloc[0]
    part, alignment = table[table["arm"] == arm], study.arms[arm].alignment
    xi = alignment.xi if alignment else 0.7
    gain = (part["label_only"] - part["mean"]).groupby([part["t"] >= xi, part["seed"]]).mean()
    if not {True, False} <= set(gain.index.get_level_values(0)):
        return []
    loss = part.groupby(part["t"] >= xi)["mean"].mean()
    facts = {"label": study.arms[arm].label, "xi": xi, "low": loss[False], "high": loss[True], "left": LEFT}
    facts |= {name: part[name].mean() for name in ("label_only", "noise_only")}
    how = {
        "runs": listed(part["run"]),
        "seeds": listed(sorted(part["seed"])),
        "training steps": part["step"].max(),
        "samples": "training latents, noised",
    }
    if (gain[False] <= 0).any():
        why = "the network aligns no better than the label alone would, below xi as above"
        return [Claim("alignment-loss", untested(why), how, facts=facts)]
    share = over_seeds(gain[True] / gain[False])
    return [Claim("alignment-loss", by_effect(share, "below", LEFT), how, share.mean, facts)]
