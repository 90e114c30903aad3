"""Comparisons between arms, judged by the FID of the main sampler at the last step."""

from typing import Any, Literal

import numpy as np

from stablevelocity.reporting.claims import Claim, Tables, bounds, judge
from stablevelocity.reporting.describe import count_text, decoder_text, interval, number, sampler_text, signed
from stablevelocity.reporting.source import Frame
from stablevelocity.reporting.statistics import over_seeds
from stablevelocity.study.methods import find

Side = Literal["below 0", "above 0"]
CLAIMED: dict[str, tuple[str, str, Side]] = {
    "stablevm": (
        "StableVM lowers FID",
        "Training with StableVM targets instead of CFM targets lowers FID.",
        "below 0",
    ),
    "repa": ("REPA lowers FID", "Representation alignment (REPA) lowers FID.", "below 0"),
    "repa-low": (
        "Alignment below xi only is better",
        "Alignment restricted to the low-variance regime is better than on the whole path.",
        "below 0",
    ),
    "repa-high": (
        "Alignment above xi only is worse",
        "Alignment restricted to the high-variance regime is far worse than on the whole path.",
        "above 0",
    ),
    "repa-stable": ("StableVM + VA beats REPA", "StableVM with VA-REPA has a lower FID than REPA.", "below 0"),
    "irepa-stable": ("StableVM + VA beats iREPA", "StableVM with VA-iREPA has a lower FID than iREPA.", "below 0"),
    "reg-stable": ("StableVM + VA beats REG", "StableVM with VA-REG has a lower FID than REG.", "below 0"),
}
HEADLINES = ("stablevm", "repa", "repa-high", "repa-stable")


def claims(tables: Tables) -> list[Claim]:
    return [*_comparisons(tables), *_alignment(tables)]


def _comparisons(tables: Tables) -> list[Claim]:
    table = tables.table("differences")
    if table is None or table.empty:
        return []
    main = tables.study.sampling.main
    table = table[(table["sampler"] == main) & (table["metric"] == "fid")]
    found = []
    for name, (short, claim, side) in CLAIMED.items():
        rows = table[table["comparison"] == name]
        if len(rows):
            found.append(_comparison(tables, rows.loc[rows["step"].idxmax()], short, claim, side))
    return found


def _comparison(tables: Tables, row: Frame, short: str, claim: str, side: Side) -> Claim:
    study = tables.study
    arm, against = study.arms[row["arm"]].label, study.arms[row["against"]].label
    verdict = judge(row["low"], row["high"], claimed=side)
    own = judge(row["paired_low"], row["paired_high"], claimed=side)
    shown = interval(row["low"], row["high"])
    text = f"FID {signed(row['difference'])} ({100 * row['relative']:+.0f} %)"
    agreement = "agrees" if own == verdict else f"alone says: {own}"
    published = row["published"] if isinstance(row["published"], str) and row["published"] else None
    known = f"95 % {shown}" if shown != "–" else "no interval from one seed"
    return Claim(
        id=str(row["comparison"]),
        paper_claim=claim,
        measured=f"{arm} against {against}: {text}, {known}, {count_text(row['seeds'], 'seed')}; "
        f"t-interval of the pair alone: {interval(row['paired_low'], row['paired_high'])} ({agreement}).",
        value=float(row["difference"]),
        interval=bounds(row["low"], row["high"]),
        unit="difference in FID",
        verdict=verdict,
        rule=f"supported when the 95 % interval of the paired difference (spread pooled over all arms) lies {side}",
        how=how(tables, row),
        line=f"{short}: {arm} against {against} {text}, {known}",
        headline=row["comparison"] in HEADLINES,
        published=published,
    )


def how(tables: Tables, row: Frame) -> dict[str, Any]:
    """Run, seed, solver, steps, guidance and samples of a row of `differences`."""
    study = tables.study
    sampler = study.sampling.samplers[row["sampler"]]
    return {
        "runs": f"{row['arm']}, {row['against']}",
        "seeds": str(row["seed_list"]).removeprefix("seeds ").removeprefix("seed "),
        "training steps": int(row["step"]),
        "sampler": f"{row['sampler']}: {sampler_text(sampler)}",
        "solver": sampler.solver,
        "steps": sampler.steps,
        "guidance": sampler.guidance,
        "decoder": decoder_text(study),
        "samples": int(row["images"]),
        "features": study.evaluation.extractor,
    }


def _alignment(tables: Tables) -> list[Claim]:
    """The alignment loss is low below xi and rises above it, in the arm that aligns everywhere (else any aligned)."""
    table = tables.table("alignment")
    if table is None:
        return []
    study = tables.study
    arm = find(study, "REPA", stablevm=False, regimes=("whole", "low (soft)", "low (hard cut)")) or table["arm"].iloc[0]
    part = table[table["arm"] == arm]
    if part.empty:
        return []
    chosen = study.arms[arm].alignment
    xi = chosen.xi if chosen else 0.7
    low = part[part["t"] < xi].groupby("seed")["mean"].mean()
    high = part[part["t"] >= xi].groupby("seed")["mean"].mean()
    if low.empty or high.empty:
        return []
    gap = over_seeds((high - low).to_numpy())
    return [
        Claim(
            id="alignment-loss",
            paper_claim="Representations align in the low-variance regime; in the high one the loss stays high.",
            measured=f"Mean alignment loss of {study.arms[arm].label} below t = {xi:g}: {number(float(low.mean()))}, "
            f"above: {number(float(high.mean()))}.",
            value=gap.mean,
            interval=bounds(gap.low, gap.high),
            unit="difference of the mean loss, above - below xi",
            verdict=judge(gap.low, gap.high, claimed="above 0"),
            rule="supported when the 95 % t-interval over seeds of the difference lies above 0",
            how={
                "runs": ", ".join(dict.fromkeys(part["run"])),
                "seeds": ", ".join(str(seed) for seed in sorted(set(part["seed"]))),
                "training steps": int(np.max(part["step"])),
                "samples": "training latents, noised",
            },
            line=f"The alignment loss is higher above xi: {study.arms[arm].label} {signed(gap.mean, 2)}",
        )
    ]
