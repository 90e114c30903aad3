"""Does StableVS keep the long run's result with fewer steps, and is it the grid or the closed form?"""

import math
from typing import Any

import numpy as np

from stablevelocity.reporting.claims import Claim, Tables, Verdict, bounds, judge
from stablevelocity.reporting.describe import SOLVERS, count_text, decoder_text, interval, number, signed, sweep_text
from stablevelocity.reporting.sections.sampling.tables import PAPER_XI
from stablevelocity.reporting.source import Frame
from stablevelocity.reporting.statistics import over_seeds

PAPER_WHERE = {True: "at the paper's xi", False: "at the swept xi that is nearest to the paper's 0.85"}
ROUNDING_DB = 0.01
"""Differences in PSNR below this are rounding (float32 networks)."""
FID_MARGIN = 0.05


def claims(tables: Tables) -> list[Claim]:
    table = tables.table("stablevs")
    if table is None or "psnr_stablevs" not in table:
        return []
    found = []
    split = _split(tables)
    solvers = list(dict.fromkeys(table["solver"]))
    main = "euler" if "euler" in solvers else solvers[0]
    xis = table["xi"].unique()
    paper_xi = float(xis[np.abs(xis - PAPER_XI).argmin()])
    found += _against_base(tables, table[(table["solver"] == main) & (table["xi"] == paper_xi)], "stablevs-paper-xi")
    if split:
        own = float(xis[np.abs(xis - split).argmin()])
        if own != paper_xi:
            rows = table[(table["solver"] == main) & (table["xi"] == own)]
            found += _against_base(tables, rows, "stablevs-own-xi", split)
    for solver in solvers:
        found += _step(tables, table[table["solver"] == solver], solver)
    found += _fidelity(tables, table, main, paper_xi)
    return found


def _split(tables: Tables) -> float | None:
    """Split point of the latents, where it was found."""
    table = tables.table("variance")
    if table is None:
        return None
    rows = table[(table["source"] == "latents") & (table["law"] == "empirical")]
    value = float(rows["split_point"].iloc[0]) if len(rows) else 0.0
    return value if value > 0 else None


def _how(tables: Tables, rows: Frame) -> dict[str, Any]:
    first = rows.iloc[0]
    return {
        "runs": ", ".join(dict.fromkeys(rows["run"])),
        "solver": first["solver"],
        "steps": ", ".join(str(steps) for steps in sorted(set(rows["nfe"]))) + " network calls",
        "low-regime steps": ", ".join(str(low) for low in sorted(set(rows["low_steps"]))),
        "xi": ", ".join(f"{xi:g}" for xi in sorted(set(rows["xi"]))),
        "guidance": tables.study.sampler(tables.study.sampling.main).guidance,
        "sampling": sweep_text(tables.study, [first["solver"]]),
        "decoder": decoder_text(tables.study),
        "samples": int(first["images"]),
        "reference": f"{int(first['reference_steps'])} steps of the same solver, same noise",
    }


def _against_base(tables: Tables, rows: Frame, name: str, split: float | None = None) -> list[Claim]:
    """StableVS against the base solver with as many calls: PSNR to the long run, most low-regime steps."""
    rows = rows[rows["psnr_base"].notna()]
    if rows.empty:
        return []
    rows = rows[rows["low_steps"] == rows["low_steps"].max()]
    first = rows.iloc[0]
    gain = over_seeds((rows["psnr_stablevs"] - rows["psnr_base"]).to_numpy())
    solver = SOLVERS[first["solver"]]
    xi, calls, low = float(first["xi"]), int(first["nfe"]), int(first["low_steps"])
    where = f"near the latents' own xi = {split:.2f}" if split else PAPER_WHERE[abs(xi - PAPER_XI) < 0.01]
    ours, base = float(rows["psnr_stablevs"].mean()), float(rows["psnr_base"].mean())
    return [
        Claim(
            id=name,
            paper_claim="With the steps below xi thinned, StableVS stays closer to the long run than the base solver "
            f"with as many steps ({where}).",
            measured=f"{solver}, {calls} calls, {low} of them below xi = {xi:g}: "
            f"PSNR to the {int(first['reference_steps'])}-step run {number(ours)} dB with StableVS, {number(base)} dB "
            f"without ({signed(gain.mean)} dB, 95 % {interval(gain.low, gain.high)}; "
            f"{count_text(gain.count, 'run')}).",
            value=gain.mean,
            interval=bounds(gain.low, gain.high),
            unit="dB PSNR",
            verdict=judge(gain.low, gain.high, claimed="above 0"),
            rule="supported when the 95 % t-interval over the swept runs lies above 0",
            how=_how(tables, rows),
            line=f"StableVS {where} ({xi:g}) beats {solver} at {calls} calls: PSNR to the long run "
            f"{number(ours)} dB, {solver} {number(base)} dB",
            headline=not split,
            published="SD3.5-Large, 20 steps: 36.92 dB with StableVS, 16.93 dB without (table 4)",
        )
    ]


def _step(tables: Tables, rows: Frame, solver: str) -> list[Claim]:
    """StableVS against its control arm: the closed-form step alone, the grid being the same."""
    effect = rows.groupby("run")["psnr_step"].mean()
    if effect.isna().all():
        return []
    size = float(rows["psnr_step"].abs().max())
    estimate = over_seeds(effect.dropna().to_numpy())
    verdict: Verdict = judge(estimate.low, estimate.high, claimed="above 0")
    note = ""
    if size < ROUNDING_DB:
        verdict = "not supported"
        note = " The two are equal to rounding: on the linear path without noise the closed form is the Euler step."
    return [
        Claim(
            id=f"stablevs-step-{solver.replace('_', '-')}",
            paper_claim="The closed-form step below xi is better than the base solver's own steps there.",
            measured=f"{SOLVERS[solver]}: PSNR of StableVS minus control on the same grid, mean over xi and steps: "
            f"{signed(estimate.mean)} dB (95 % {interval(estimate.low, estimate.high)}), "
            f"largest {number(size)} dB.{note}",
            value=estimate.mean,
            interval=bounds(estimate.low, estimate.high),
            unit="dB PSNR",
            verdict=verdict,
            rule="supported when the 95 % t-interval over the swept runs lies above 0; "
            f"differences below {ROUNDING_DB} dB count as none",
            how=_how(tables, rows),
            line=f"The closed form beats the solver's own steps ({SOLVERS[solver]}): StableVS minus control "
            + ("0 dB to rounding, all of it is the grid" if note else f"{signed(estimate.mean, 2)} dB"),
            headline=solver == "euler",
        )
    ]


def _fidelity(tables: Tables, table: Frame, solver: str, xi: float) -> list[Claim]:
    """FID of StableVS at the paper's xi against the long run of the same networks."""
    few = tables.table("few_step")
    rows = table[(table["solver"] == solver) & (table["xi"] == xi)]
    if few is None or "fid_stablevs" not in table or rows.empty:
        return []
    rows = rows[rows["low_steps"] == rows["low_steps"].max()].set_index("run")
    long = few[(few["solver"] == solver) & (few["low_regime"] == "none") & (few["steps"] == few["reference_steps"])]
    change = (rows["fid_stablevs"] / long.set_index("run")["fid"] - 1).dropna()
    if change.empty:
        return []
    estimate = over_seeds(change.to_numpy())
    first = rows.iloc[0]
    if math.isnan(estimate.high):
        verdict: Verdict = "inconclusive at this scale"
    elif estimate.high < FID_MARGIN:
        verdict = "supported"
    else:
        verdict = "not supported" if estimate.low > FID_MARGIN else "inconclusive at this scale"
    return [
        Claim(
            id="stablevs-fid",
            paper_claim="StableVS loses no quality against the long run.",
            measured=f"{SOLVERS[solver]}, {int(first['nfe'])} calls instead of {int(first['reference_steps'])}, "
            f"xi = {xi:g}: FID {100 * estimate.mean:+.1f} % (95 % {_percent(estimate.low, estimate.high)}; "
            f"{count_text(estimate.count, 'run')}).",
            value=estimate.mean,
            interval=bounds(estimate.low, estimate.high),
            unit="relative change of FID",
            verdict=verdict,
            rule=f"supported when the 95 % t-interval over runs ends below +{100 * FID_MARGIN:.0f} %",
            how=_how(tables, rows.reset_index()),
            line=f"StableVS loses no FID: with {int(first['nfe'])} calls against {int(first['reference_steps'])}: "
            f"{100 * estimate.mean:+.1f} %",
        )
    ]


def _percent(low: float, high: float) -> str:
    return "–" if math.isnan(low) else f"{100 * low:+.1f} to {100 * high:+.1f} %"
