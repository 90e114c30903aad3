"""The paper's claims about StableVS on pretrained models, judged on this study's pictures."""

import numpy as np

from stablevelocity.reporting.claims import Claim, Tables, bounds, judge
from stablevelocity.reporting.describe import pretrained_scope
from stablevelocity.reporting.sections.pretrained import families
from stablevelocity.reporting.source import Frame
from stablevelocity.study.pretrained_settings import SOLVERS

RULE = "95 % interval of the paired difference over pictures lies on the claimed side of 0"


def claims(tables: Tables) -> list[Claim]:
    """For each family: StableVS against as many base steps, and against the base step on its own grid."""
    found = []
    for video, name in ((False, "table4"), (True, "table5")):
        table = tables.table(name)
        if table is None:
            continue
        for family in families(tables.study, video=video):
            rows = table[table["family"] == family]
            solver = SOLVERS[family][0]
            row = rows[rows["arm"] == f"{solver}-stablevs"].iloc[0]
            found.append(_against(row, family, solver, "short", pretrained_scope(tables.study)))
            if solver != "euler":
                found.append(_against(row, family, solver, "control", pretrained_scope(tables.study)))
    return found


def _against(row: Frame, family: str, solver: str, other: str, scope: str) -> Claim:
    value = float(row[f"psnr_over_{other}"])
    low, high = float(row[f"psnr_over_{other}_low"]), float(row[f"psnr_over_{other}_high"])
    what = {
        "short": ("StableVS keeps closer to the long run than as many base steps", "base steps of the same number"),
        "control": ("The closed-form step is better than the base step on the same grid", "control arm"),
    }[other]
    published = {"sd35": "36.92 dB against 16.93 dB", "wan22": "31.10 dB against 15.61 dB"}.get(family)
    verdict = judge(low, high, claimed="above 0")
    error = (high - low) / 2
    measured = f"PSNR to the long run {value:+.2f} dB over the {what[1]}" + (
        f" (interval {low:+.2f} to {high:+.2f})" if np.isfinite(error) else ""
    )
    return Claim(
        id=f"stablevs-{family}-{other}",
        paper_claim=f"{what[0]} ({family})",
        measured=measured,
        value=value,
        interval=bounds(low, high),
        unit="dB",
        verdict=verdict,
        rule=RULE,
        how={"family": family, "solver": solver, "steps": int(row["steps"]), "pictures": int(row["pictures"])},
        line=f"{family}: StableVS {value:+.1f} dB PSNR to the long run over {what[1]}",
        headline=other == "short",
        published=published if other == "short" else None,
        scope=scope,
    )
