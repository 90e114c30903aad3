"""Comparisons between arms by the FID of the main sampler at the last step."""

from stablevelocity.reporting.claims import Claim
from stablevelocity.reporting.describe import decoder_text, sampler_text
from stablevelocity.reporting.format import interval, listed, percent, signed
from stablevelocity.reporting.results import DataFrame, Results, Series
from stablevelocity.reporting.statistics import over_seeds
from stablevelocity.reporting.verdicts import Side, by_interval
from stablevelocity.study.methods import find

CLAIMED = ("stablevm", "repa", "repa-low", "repa-high", "repa-stable", "irepa-stable", "reg-stable")
"""Comparisons of which the paper says that the first arm has the lower FID; with repa-high the higher one."""


def claims(results: Results) -> list[Claim]:
    table, curves = results.table("differences"), results.table("alignment")
    table = table[(table["sampler"] == results.study.sampling.main) & (table["metric"] == "fid")]
    last = table.sort_values("step").groupby("comparison").tail(1).set_index("comparison")
    compared = [_comparison(results, name, last.loc[name]) for name in CLAIMED if name in last.index]
    return compared if curves is None else [*compared, *_alignment(results, curves)]


def _comparison(results: Results, name: str, row: Series) -> Claim:
    study = results.study
    side: Side = "above" if name == "repa-high" else "below"
    sampler = study.sampler(row["sampler"])
    one_seed = row["low"] != row["low"]
    facts = {
        "row": row,
        "side": side,
        "arms": f"{study.arms[row['arm']].label} against {study.arms[row['against']].label}",
        "change": f"FID {signed(row['difference'])} ({percent(row['relative'], 0)})",
        "known": "no interval from one seed" if one_seed else f"95 % {interval(row['low'], row['high'])}",
        "alone": by_interval(row["paired_low"], row["paired_high"], side),
    }
    how = {
        "runs": f"{row['arm']}, {row['against']}",
        "seeds": row["seed_list"].split(" ", 1)[1],
        "training steps": row["step"],
        "sampler": f"{row['sampler']}: {sampler_text(sampler)}",
        "solver": sampler.solver,
        "steps": sampler.steps,
        "guidance": sampler.guidance,
        "decoder": decoder_text(study),
        "samples": row["images"],
        "features": study.evaluation.extractor,
    }
    bounds = row["low"], row["high"]
    return Claim(name, row["difference"], by_interval(*bounds, side), how, bounds, facts)


def _alignment(results: Results, table: DataFrame) -> list[Claim]:
    """The alignment loss is low below xi and rises above it, in the arm that aligns everywhere (else any aligned)."""
    study = results.study
    everywhere = find(study, "REPA", stablevm=False, regimes=("whole", "low (soft)", "low (hard cut)"))
    arm = everywhere or table["arm"].iloc[0]
    part, alignment = table[table["arm"] == arm], study.arms[arm].alignment
    xi = alignment.xi if alignment else 0.7
    low, high = (rows.groupby("seed")["mean"].mean() for rows in (part[part["t"] < xi], part[part["t"] >= xi]))
    if low.empty or high.empty:
        return []
    gap = over_seeds(high - low)
    how = {
        "runs": listed(part["run"]),
        "seeds": listed(sorted(part["seed"])),
        "training steps": part["step"].max(),
        "samples": "training latents, noised",
    }
    facts = {"label": study.arms[arm].label, "xi": xi, "low": low.mean(), "high": high.mean()}
    bounds = gap.low, gap.high
    return [Claim("alignment-loss", gap.mean, by_interval(*bounds, "above"), how, bounds, facts)]
