"""Does StableVS keep the long run's result with fewer steps, and is it the grid or the closed form?"""

from typing import Any

from stablevelocity.reporting.claims import Claim
from stablevelocity.reporting.describe import decoder_text, sweep_text
from stablevelocity.reporting.format import listed, plain
from stablevelocity.reporting.names import SOLVERS
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.sampling.tables import PAPER_XI, nearest
from stablevelocity.reporting.statistics import over_seeds
from stablevelocity.reporting.verdicts import by_interval

ROUNDING_DB = 0.01
"""Differences in PSNR below this are rounding (float32 networks)."""
FID_MARGIN = 0.05


def claims(results: Results) -> list[Claim]:
    table, splits = results.table("stablevs"), results.table("variance")
    if "psnr_stablevs" not in table:
        return []
    solvers = list(table["solver"].unique())
    main = table[table["solver"] == ("euler" if "euler" in solvers else solvers[0])]
    latents = splits[(splits["source"] == "latents") & (splits["law"] == "empirical") & (splits["split_point"] > 0)]
    xis = table["xi"].unique()
    paper = nearest(xis, PAPER_XI)
    at = "the paper's xi" if abs(paper - PAPER_XI) < 0.01 else "the swept xi that is nearest to the paper's 0.85"
    made = [_from_base(results, main[main["xi"] == paper], "paper", f"at {at}")]
    for split in latents["split_point"]:
        own = nearest(xis, split)
        if own != paper:
            where = f"near the latents' own xi = {split:.2f}"
            made.append(_from_base(results, main[main["xi"] == own], "own", where))
    made += [_step(results, table[table["solver"] == solver], solver) for solver in solvers]
    return [claim for claim in [*made, _fidelity(results, main[main["xi"] == paper])] if claim]


def _how(results: Results, rows: DataFrame) -> dict[str, Any]:
    first, study = rows.iloc[0], results.study
    return {
        "runs": listed(rows["run"]),
        "solver": first["solver"],
        "steps": f"{listed(sorted(rows['nfe']))} network calls",
        "low-regime steps": listed(sorted(rows["low_steps"])),
        "xi": listed(sorted(rows["xi"]), plain),
        "guidance": study.sampler(study.sampling.main).guidance,
        "sampling": sweep_text(study, [first["solver"]]),
        "decoder": decoder_text(study),
        "samples": first["images"],
        "reference": f"{first['reference_steps']} steps of the same solver, same noise",
    }


def _most_steps(rows: DataFrame) -> DataFrame:
    """Those with the most low-regime steps."""
    return rows[rows["low_steps"] == rows["low_steps"].max()]


def _from_base(results: Results, rows: DataFrame, which: str, where: str) -> Claim | None:
    """StableVS against the base solver with as many calls: PSNR to the long run, most low-regime steps."""
    rows = _most_steps(rows[rows["psnr_base"].notna()])
    if rows.empty:
        return None
    first = rows.iloc[0]
    gain, _, low, high, runs = over_seeds(rows["psnr_stablevs"] - rows["psnr_base"])
    facts = {"where": where, "solver": SOLVERS[first["solver"]], "first": first, "runs": runs}
    facts |= {"ours": rows["psnr_stablevs"].mean(), "base": rows["psnr_base"].mean()}
    verdict = by_interval(low, high, "above")
    return Claim(f"stablevs-{which}-xi", gain, verdict, _how(results, rows), (low, high), facts)


def _step(results: Results, rows: DataFrame, solver: str) -> Claim | None:
    """StableVS against its control arm: the closed-form step alone, the grid being the same."""
    effect = rows.groupby("run")["psnr_step"].mean().dropna()
    if effect.empty:
        return None
    mean, _, low, high, _ = over_seeds(effect)
    largest = rows["psnr_step"].abs().max()
    equal = largest < ROUNDING_DB
    verdict = "not supported" if equal else by_interval(low, high, "above")
    facts = {"solver": SOLVERS[solver], "largest": largest, "equal": equal, "rounding": ROUNDING_DB}
    name = f"stablevs-step-{solver.replace('_', '-')}"
    return Claim(name, mean, verdict, _how(results, rows), (low, high), facts)


def _fidelity(results: Results, rows: DataFrame) -> Claim | None:
    """FID of StableVS against the long run of the same networks, most low-regime steps."""
    if "fid_stablevs" not in rows or rows.empty:
        return None
    rows, few = _most_steps(rows), results.table("few_step")
    first = rows.iloc[0]
    long = few[(few["solver"] == first["solver"]) & (few["low_regime"] == "none")]
    long = long[long["steps"] == long["reference_steps"]].set_index("run")["fid"]
    change = (rows.set_index("run")["fid_stablevs"] / long - 1).dropna()
    if change.empty:
        return None
    mean, _, low, high, runs = over_seeds(change)
    facts = {"solver": SOLVERS[first["solver"]], "first": first, "runs": runs, "margin": FID_MARGIN}
    verdict = by_interval(low, high, "below", FID_MARGIN)
    return Claim("stablevs-fid", mean, verdict, _how(results, rows), (low, high), facts)
