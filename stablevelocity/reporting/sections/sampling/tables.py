"""StableVS beside its control arm and the base solver, and every sampler by its number of network calls."""

import math
from typing import Any

import numpy as np
import pandas as pd

from stablevelocity.reporting.sections.sampling import sweep_file
from stablevelocity.reporting.source import Frame, Source

MEASURES = ("psnr", "ssim", "lpips", "feature_distance", "fid")
SHARED = ("diffusion", "last_time", "guidance", "guidance_low", "guidance_high", "labels")
"""What a sweep's samplers take from the main sampler; of Euler-Maruyama alone the first two."""
PAPER_XI = 0.85


def sweep(source: Source) -> Frame:
    """All swept runs: run, arm, solver, low_regime, steps, nfe, xi, low_steps, images, reference_steps, measures."""
    frame: Any = pd.concat([source.csv(sweep_file(run)) for run in source.study.sweep_runs()], ignore_index=True)
    return frame.drop(columns=[name for name in MEASURES if name in frame and frame[name].isna().all()])


def measures_of(frame: Frame) -> list[str]:
    return [name for name in MEASURES if name in frame]


def latent_split(source: Source) -> tuple[float, float, float]:
    """Split point of the latents with its interval; NaN when the study did not measure it."""
    frame = source.csv("variance/split_points.csv")
    found = frame[(frame["source"] == "latents") & (frame["law"] == "empirical")]
    if found.empty:
        return math.nan, math.nan, math.nan
    row = found.iloc[0]
    return float(row["xi"]), float(row["low"]), float(row["high"])


def at_calls(base: Frame, measure: str, nfe: float) -> float:
    """A measure of the base solver at that many network calls, interpolated between those it was run with.

    NaN outside their range, and where a neighbour is missing or infinite (PSNR of the long run to itself).
    """
    known = base[np.isfinite(base[measure])].sort_values("nfe")
    if known.empty or not known["nfe"].min() <= nfe <= known["nfe"].max():
        return math.nan
    return float(np.interp(nfe, known["nfe"], known[measure]))


def stablevs(source: Source) -> Frame:
    """One row per run, solver, xi and number of low-regime steps.

    For each measure: StableVS, control (the base solver on the same grid), base (the base solver on its own grid with
    as many network calls); `<measure>_step` = StableVS - control is the closed-form step's own effect,
    `<measure>_grid` = control - base the grid's.
    """
    frame = sweep(source)
    measures = measures_of(frame)
    thinned = frame[frame["low_regime"] != "none"]
    rows = []
    for (run, solver, xi, low_steps), part in thinned.groupby(["run", "solver", "xi", "low_steps"], sort=False):
        arms = part.set_index("low_regime")
        base = frame[(frame["run"] == run) & (frame["solver"] == solver) & (frame["low_regime"] == "none")]
        first = part.iloc[0]
        row = {
            "run": run,
            "arm": first["arm"],
            "solver": solver,
            "xi": xi,
            "low_steps": int(low_steps),
            "steps": int(first["steps"]),
            "nfe": int(first["nfe"]),
            "images": int(first["images"]),
            "reference_steps": int(first["reference_steps"]),
            **{name: first[name] for name in SHARED},
            "base_interpolated": int(first["nfe"]) not in set(base["nfe"]),
        }
        for measure in measures:
            ours = _value(arms, "stablevs", measure)
            control = _value(arms, "control", measure)
            plain = at_calls(base, measure, float(first["nfe"]))
            row |= {
                f"{measure}_stablevs": ours,
                f"{measure}_control": control,
                f"{measure}_base": plain,
                f"{measure}_step": ours - control,
                f"{measure}_grid": control - plain,
            }
        rows.append(row)
    return pd.DataFrame(rows)


def _value(arms: Frame, name: str, measure: str) -> float:
    return float(arms.loc[[name], measure].iloc[0]) if name in arms.index else math.nan


def shown_xis(source: Source, frame: Frame) -> list[float]:
    """The swept xi nearest to the paper's 0.85 and the one nearest to the latents' own split point."""
    present = np.sort(frame["xi"].dropna().unique())
    if not len(present):
        return []
    own = latent_split(source)[0]
    wanted = [PAPER_XI] + ([own] if np.isfinite(own) else [])
    return sorted({float(present[np.abs(present - one).argmin()]) for one in wanted}, reverse=True)


def few_step(source: Source) -> Frame:
    """Every sampler by its network calls; of the thinned grids those at the paper's xi and at the latents' own."""
    frame = sweep(source)
    kept = frame[(frame["low_regime"] == "none") | frame["xi"].isin(shown_xis(source, frame))]
    return kept.sort_values(["run", "solver", "low_regime", "nfe"]).reset_index(drop=True)
