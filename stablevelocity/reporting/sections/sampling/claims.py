"""Does StableVS keep the long run's result with fewer steps, and is it the grid or the closed form?"""

from typing import Any

from stablevelocity.reporting.claims import Claim
from stablevelocity.reporting.describe import decoder_text, sweep_text
from stablevelocity.reporting.format import listed, number, plain
from stablevelocity.reporting.names import SOLVERS
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.sampling.tables import PAPER_XI, nearest
from stablevelocity.reporting.statistics import over_clusters, over_seeds
from stablevelocity.reporting.verdicts import by_effect, check, untested

ROUNDING_DB = 0.01
"""Differences in PSNR below this are rounding (float32 networks)."""
FID_MARGIN = 0.05
KEYS = ["solver", "xi", "low_steps"]


def claims(results: Results) -> list[Claim]:
    table, images, splits = (results.table(name) for name in ("stablevs", "stablevs_images", "variance"))
    if "psnr_stablevs" not in table:
        return []
    solvers = list(table["solver"].unique())
    main = table[table["solver"] == ("euler" if "euler" in solvers else solvers[0])]
    latents = splits[(splits["source"] == "latents") & (splits["law"] == "empirical") & (splits["split_point"] > 0)]
    xis = table["xi"].unique()
    paper = nearest(xis, PAPER_XI)
    at = "the paper's xi" if abs(paper - PAPER_XI) < 0.01 else "the swept xi that is nearest to the paper's 0.85"
    made = [_from_base(results, main[main["xi"] == paper], images, "paper", f"at {at}")]
    for split in latents["split_point"]:
        own = nearest(xis, split)
        if own != paper:
            where = f"near the latents' own xi = {split:.2f}"
            made.append(_from_base(results, main[main["xi"] == own], images, "own", where))
    made += [_step(results, table[table["solver"] == solver], images, solver) for solver in solvers]
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


def _from_base(results: Results, rows: DataFrame, images: DataFrame, which: str, where: str) -> Claim | None:
    """StableVS against the base solver with as many calls: PSNR to the long run, paired over images."""
    rows = _most_steps(rows[rows["psnr_base"].notna()])
    if rows.empty:
        return None
    first, pairs = rows.iloc[0], images.merge(rows[KEYS].drop_duplicates())
    gain, ssim = (over_clusters(pairs[f"{measure}_over_base"], pairs["image"]) for measure in ("psnr", "ssim"))
    facts = {"where": where, "solver": SOLVERS[first["solver"]], "first": first, "images": pairs["image"].nunique()}
    facts |= {"ours": rows["psnr_stablevs"].mean(), "base": rows["psnr_base"].mean(), "runs": rows["run"].nunique()}
    facts |= {"ssim": ssim.mean, "ssim_bounds": ssim.bounds()}
    return Claim(f"stablevs-{which}-xi", by_effect(gain, "above"), _how(results, rows), gain.mean, facts)


def _step(results: Results, rows: DataFrame, images: DataFrame, solver: str) -> Claim | None:
    """StableVS against its control arm: the closed-form step alone, the grid being the same."""
    rows = rows[rows["psnr_step"].notna()]
    if rows.empty:
        return None
    pairs = images.merge(rows[KEYS].drop_duplicates())
    effect = over_clusters(pairs["psnr_over_control"], pairs["image"])
    largest = rows["psnr_step"].abs().max()
    equal = largest < ROUNDING_DB
    facts = {"solver": SOLVERS[solver], "largest": largest, "equal": equal, "rounding": ROUNDING_DB}
    facts["more_calls"] = bool((rows["nfe_control"] > rows["nfe"]).any())
    name = f"stablevs-step-{solver.replace('_', '-')}"
    few = results.table("few_step")
    controls = few[(few["solver"] == solver) & (few["low_regime"] == "control")]
    if "drawn_as" in few and (controls["drawn_as"] == "stablevs").all():
        why = "the control's steps are those of StableVS to the last bit, so it is not drawn again"
        return Claim(name, untested(why), _how(results, rows), effect.mean, facts)
    return Claim(name, check() if equal else by_effect(effect, "above"), _how(results, rows), effect.mean, facts)


def _fidelity(results: Results, rows: DataFrame) -> Claim | None:
    """FID of StableVS against the base solver with as many calls, where more steps than those help the networks."""
    if "fid_stablevs" not in rows or rows.empty:
        return None
    rows, few = _most_steps(rows[rows["fid_base"].notna()]).set_index("run"), results.table("few_step")
    if rows.empty:
        return None
    first = rows.iloc[0]
    long = few[(few["solver"] == first["solver"]) & (few["low_regime"] == "none")]
    long = long[long["steps"] == long["reference_steps"]].set_index("run")["fid"].reindex(rows.index)
    how = _how(results, rows.reset_index())
    facts = {"solver": SOLVERS[first["solver"]], "first": first, "runs": len(rows), "margin": FID_MARGIN}
    facts |= {"long": long.mean(), "base": rows["fid_base"].mean()}
    if (rows["fid_base"] <= long).any():
        why = f"more steps do not lower FID here: {number(facts['base'])} with {first['nfe']:.0f} calls, "
        why += f"{number(facts['long'])} with {first['reference_steps']}"
        return Claim("stablevs-fid", untested(why), how, facts=facts)
    change = over_seeds(rows["fid_stablevs"] / rows["fid_base"] - 1)
    return Claim("stablevs-fid", by_effect(change, "below", FID_MARGIN), how, change.mean, facts)
