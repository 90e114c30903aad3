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
EQUAL_DB = 110.0
"""PSNR of images that are equal: no 8-bit images of up to 512 pixels that differ have more."""


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
    as many network calls as StableVS, `nfe`); `<measure>_step` = StableVS - control is the closed-form step's own
    effect, `<measure>_grid` = control - base the grid's. Heun's control makes more calls, `nfe_control`: two a step.
    """
    frame = sweep(results)
    thinned = frame["low_regime"] != "none"
    bases = frame[~thinned].groupby(["run", "solver"])
    rows = []
    for key, part in frame[thinned].groupby(["run", "solver", "xi", "low_steps"], sort=False):
        arms, base = part.set_index("low_regime"), bases.get_group(key[:2])
        first = arms.loc["stablevs"]
        names = ("run", "arm", "solver", "xi", "low_steps", "steps", "nfe", "images", "reference_steps", *SHARED)
        row = {name: first[name] for name in names} | {"low_steps": int(first["low_steps"])}
        row["nfe_control"] = arms["nfe"].get("control", math.nan)
        row["base_interpolated"] = first["nfe"] not in set(base["nfe"])
        for measure in [name for name in SIMILARITY if name in frame]:
            ours, control = (arms[measure].get(arm, math.nan) for arm in ("stablevs", "control"))
            plain = at_calls(base, measure, first["nfe"])
            row |= {f"{measure}_stablevs": ours, f"{measure}_control": control, f"{measure}_base": plain}
            row |= {f"{measure}_step": ours - control, f"{measure}_grid": control - plain}
        rows.append(row)
    return pd.DataFrame(rows)


def stablevs_images(results: Results) -> DataFrame:
    """`stablevs` image by image: psnr and ssim of StableVS over the base solver with as many calls, and over control.

    `image` names the noise and label; mean over the runs that share them. PSNR counts as at most `EQUAL_DB`.
    """
    names = [LAYOUT.sweep_images(run) for run in results.study.sweep_runs()]
    frame: DataFrame = pd.concat([results.csv(name) for name in names], ignore_index=True)
    frame["psnr"] = frame["psnr"].clip(upper=EQUAL_DB)
    if results.study.sampling.seed == "by_run":
        seeds = frame["run"].map({name: run.seed for name, run in results.study.runs().items()})
        frame["image"] += seeds * results.study.sampling.sweep.images
    base_steps, thinned = results.study.sampling.sweep.base_steps, frame["low_regime"] != "none"
    bases, parts = frame[~thinned & (frame["steps"] != base_steps)], []
    keys = ["run", "solver", "xi", "low_steps"]
    for key, part in frame[thinned].groupby(keys, sort=False):
        base = bases[(bases["run"] == key[0]) & (bases["solver"] == key[1])]
        row = pd.DataFrame({**dict(zip(keys, key, strict=True)), "image": sorted(part["image"].unique())})
        calls = part.loc[part["low_regime"] == "stablevs", "nfe"].iloc[0]  # the control's own may be more
        for measure in ("psnr", "ssim"):
            arms = part.pivot_table(index="image", columns="low_regime", values=measure)
            plain = base.pivot_table(index="nfe", columns="image", values=measure)
            row[f"{measure}_over_base"] = arms["stablevs"].to_numpy() - _at_calls(plain, calls)
            row[f"{measure}_over_control"] = (arms["stablevs"] - arms["control"]).to_numpy()
        parts.append(row)
    if not parts:
        return pd.DataFrame(columns=[*keys[1:], "image"])
    by_image = pd.concat(parts).drop(columns="run").groupby([*keys[1:], "image"], sort=False)
    return by_image.mean().reset_index()


def _at_calls(plain: DataFrame, nfe: float) -> np.ndarray:
    """Each image's measure at that many calls, from a table of calls by images; NaN outside their range."""
    known = plain.index.to_numpy(float)
    return np.array([np.interp(nfe, known, values, math.nan, math.nan) for values in plain.to_numpy().T])


def few_step(results: Results) -> DataFrame:
    """Every sampler by its network calls; of the thinned grids those at the swept xi nearest to the paper's and nearest
    to the latents' own split point."""
    frame = sweep(results)
    swept, own = frame["xi"].dropna().unique(), latent_split(results)[0]
    shown = [nearest(swept, xi) for xi in (PAPER_XI, own) if len(swept) and np.isfinite(xi)]
    kept = frame[(frame["low_regime"] == "none") | frame["xi"].isin(shown)]
    return kept.sort_values(["run", "solver", "low_regime", "nfe"]).reset_index(drop=True)
