"""StableVS beside its control arm and the base solver, and every sampler by its number of network calls."""

import math

import numpy as np
import pandas as pd

from stablevelocity.reporting.names import SIMILARITY
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.spec import LAYOUT

SHARED = ("diffusion", "last_time", "guidance", "guidance_low", "guidance_high", "labels")
"""What a sweep's samplers take from the main sampler; of Euler-Maruyama alone the first two."""
PAPER_XI = 0.85


def sweep(results: Results) -> DataFrame:
    """All swept runs: run, arm, solver, low_regime, steps, nfe, xi, low_steps, images, reference_steps, measures."""
    frame: DataFrame = pd.concat(
        [results.csv(LAYOUT.sweep(run)) for run in results.study.sweep_runs()], ignore_index=True
    )
    return frame.drop(columns=[name for name in SIMILARITY if name in frame and frame[name].isna().all()])


def latent_split(results: Results) -> tuple[float, float, float]:
    """Split point of the latents with its interval; NaN when the study did not measure it."""
    splits = results.csv(LAYOUT.split_points).set_index(["source", "law"])[["xi", "low", "high"]]
    xi, low, high = splits.reindex([("latents", "empirical")]).iloc[0]
    return xi, low, high


def nearest(values: np.ndarray, wanted: float) -> float:
    return float(values[np.abs(values - wanted).argmin()])


def at_calls(base: DataFrame, measure: str, nfe: float) -> float:
    """A measure of the base solver at that many network calls, interpolated between those it was run with.

    NaN outside their range, and where a neighbour is missing or infinite (PSNR of the long run to itself).
    """
    known = base[np.isfinite(base[measure])].sort_values("nfe")
    return float(np.interp(nfe, known["nfe"], known[measure], math.nan, math.nan)) if len(known) else math.nan


def stablevs(results: Results) -> DataFrame:
    """One row per run, solver, xi and number of low-regime steps.

    For each measure: StableVS, control (the base solver on the same grid), base (the base solver on its own grid with
    as many network calls); `<measure>_step` = StableVS - control is the closed-form step's own effect,
    `<measure>_grid` = control - base the grid's.
    """
    frame = sweep(results)
    thinned = frame["low_regime"] != "none"
    bases = frame[~thinned].groupby(["run", "solver"])
    rows = []
    for key, part in frame[thinned].groupby(["run", "solver", "xi", "low_steps"], sort=False):
        arms, base, first = part.set_index("low_regime"), bases.get_group(key[:2]), part.iloc[0]
        names = ("run", "arm", "solver", "xi", "low_steps", "steps", "nfe", "images", "reference_steps", *SHARED)
        row = {name: first[name] for name in names} | {"low_steps": int(first["low_steps"])}
        row["base_interpolated"] = first["nfe"] not in set(base["nfe"])
        for measure in [name for name in SIMILARITY if name in frame]:
            ours, control = (arms[measure].get(arm, math.nan) for arm in ("stablevs", "control"))
            plain = at_calls(base, measure, first["nfe"])
            row |= {f"{measure}_stablevs": ours, f"{measure}_control": control, f"{measure}_base": plain}
            row |= {f"{measure}_step": ours - control, f"{measure}_grid": control - plain}
        rows.append(row)
    return pd.DataFrame(rows)


def few_step(results: Results) -> DataFrame:
    """Every sampler by its network calls; of the thinned grids those at the swept xi nearest to the paper's and nearest
    to the latents' own split point."""
    frame = sweep(results)
    swept, own = frame["xi"].dropna().unique(), latent_split(results)[0]
    shown = [nearest(swept, xi) for xi in (PAPER_XI, own) if len(swept) and np.isfinite(xi)]
    kept = frame[(frame["low_regime"] == "none") | frame["xi"].isin(shown)]
    return kept.sort_values(["run", "solver", "low_regime", "nfe"]).reset_index(drop=True)
