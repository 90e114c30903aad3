"""Figures of the training runs: FID by arm, alignment over t, FID by regime, curves."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stablevelocity.reporting.figures import (
    PUBLISHED_COLOUR,
    arm_colours,
    arm_markers,
    dots,
    log_y,
    mark_published,
    new_figure,
)
from stablevelocity.reporting.sections.training import principal_runs
from stablevelocity.reporting.sections.training.data import by_seed, common_step, fidelity, floor
from stablevelocity.reporting.source import Frame, Source
from stablevelocity.reporting.statistics import over_seeds
from stablevelocity.study import Study
from stablevelocity.study.methods import baseline, find, principal

SMOOTHING = 5
"""Rows of metrics.csv averaged in the training curves."""


def rows_for(study: Study, values: Frame, arms: list[str]) -> list[dict]:
    """What `figures.dots` draws: one row for each of `arms`, from a table of arms by seeds."""
    colours, markers = arm_colours(study), arm_markers(study)
    rows = []
    for arm in arms:
        seeds = values.loc[arm].dropna().to_numpy()
        estimate = over_seeds(seeds)
        rows.append(
            {
                "label": study.arms[arm].label,
                "colour": colours[arm],
                "marker": markers[arm],
                "seeds": seeds,
                "mean": estimate.mean,
                "low": estimate.low,
                "high": estimate.high,
            }
        )
    return rows


def by_arm(source: Source) -> Figure:
    """FID by arm at the last step that most arms have, every seed shown; FID against steps if several were kept."""
    study = source.study
    main = study.sampling.main
    frame = fidelity(source, [main])
    last = common_step(frame)
    values = by_seed(frame, "fid", last, main)
    arms = [arm for arm in study.arms if arm in values.index]
    several = frame["step"].nunique() > 1
    height = max(3.4, 1.3 + 0.42 * len(arms))
    figure, axes = new_figure(1, 2 if several else 1, height, [1.25, 1.0] if several else None)
    axis = axes[0, 0]
    dots(axis, rows_for(study, values, arms))
    _floor(axis, source)
    axis.set_xlabel("FID (lower is better)")
    axis.set_title(f"After {last:,} steps")
    if several:
        _against_steps(axes[0, 1], study, frame, arms)
    return figure


def _floor(axis: Axes, source: Source) -> None:
    """The real-against-real FID as a line when it falls into the frame, else as a note."""
    real = floor(source).loc["fid"]
    value = float(real["value"])
    low, high = axis.get_xlim()
    if low <= value <= high:
        axis.axvline(value, color="#333333", linestyle=":", linewidth=1.2)
    axis.text(
        0.99,
        0.01,
        f"{real['images']:,} real held-out images: {value:.3g}",
        transform=axis.transAxes,
        ha="right",
        va="bottom",
        fontsize=8.5,
    )


def _against_steps(axis: Axes, study: Study, frame: Frame, arms: list[str]) -> None:
    colours, markers = arm_colours(study), arm_markers(study)
    for arm in arms:
        part = frame[(frame["arm"] == arm) & (frame["metric"] == "fid")].groupby("step")["value"]
        mean = part.mean()
        axis.plot(mean.index, mean, marker=markers[arm], color=colours[arm], label=study.arms[arm].label)
        axis.fill_between(mean.index, part.min(), part.max(), color=colours[arm], alpha=0.12, linewidth=0)
    log_y(axis)
    axis.set_xlabel("training steps")
    axis.set_ylabel("FID (lower is better)")
    axis.set_title("Against training steps")


def alignment(source: Source) -> Figure:
    """Figure 3a: alignment loss of the trained networks over t; the lines stop telling apart where noise wins."""
    study = source.study
    colours, markers = arm_colours(study), arm_markers(study)
    figure, axes = new_figure(1, 1, 3.6)
    axis = axes[0, 0]
    per_arm: dict[str, list[Frame]] = {}
    runs = [run for run in principal_runs(study) if run.alignment]
    for run in runs:
        if run.alignment:
            frame = source.csv(f"runs/{run.name}/alignment.csv")
            per_arm.setdefault(run.arm, []).append(frame[frame["step"] == frame["step"].max()])
    for arm, frames in per_arm.items():
        by_time: Any = pd.concat(frames).groupby("t")
        mean = by_time["mean"].mean()
        axis.plot(mean.index, mean, marker=markers[arm], markersize=4, color=colours[arm], label=study.arms[arm].label)
        low, high = by_time["q15"].mean(), by_time["q85"].mean()
        axis.fill_between(mean.index, low, high, color=colours[arm], alpha=0.08, linewidth=0)
    xis = {run.alignment.xi for run in runs if run.alignment}
    for xi in xis:
        axis.axvline(xi, color="#009e73", linestyle="--", linewidth=1.2, label=f"training xi = {xi:g}")
    axis.set_xlim(0, 1)
    axis.set_xlabel("t   (0 data, 1 noise)")
    axis.set_ylabel("alignment loss (minus cosine)")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def regimes(source: Source) -> Figure:
    """Figure 3b: FID with alignment nowhere, everywhere, below xi, above xi. Left measured, right published."""
    study = source.study
    main = study.sampling.main
    frame = fidelity(source, [main])
    step = common_step(frame[frame["arm"].isin(principal(study))])
    values = by_seed(frame, "fid", step, main)
    wanted = [baseline(study)]
    for regime in ("whole", "low (hard cut)", "low (soft)", "high"):
        wanted.append(find(study, "REPA", stablevm=False, regimes=(regime,)))
    arms = [arm for arm in wanted if arm and arm in values.index]
    figure, axes = new_figure(1, 2, 3.4, [1.1, 1.0])
    left, right = axes[0]
    dots(left, rows_for(study, values, arms))
    left.set_xlabel("FID (lower is better)")
    left.set_title(f"Measured\n{study.name}, {step:,} steps")
    published = source.published_csv("figure3b_alignment_regime.csv")
    places = range(len(published))
    right.barh(places, published["fid_50k"], color="#e8d9a0", edgecolor=PUBLISHED_COLOUR, hatch="//", height=0.55)
    for place, value in zip(places, published["fid_50k"], strict=True):
        right.text(value + 0.6, place, f"{value:.2f}", va="center", fontsize=9)
    names = [name.replace("REPA in the", "REPA,").replace("REPA on the", "REPA,") for name in published["alignment"]]
    right.set_yticks(places, names)
    right.set_ylim(len(published) - 0.5, -0.5)
    right.set_xlim(0, float(np.nanmax(published["fid_50k"])) * 1.18)
    right.set_xlabel("FID of 50,000 samples, ImageNet 256")
    right.grid(axis="y", visible=False)
    mark_published(right, "SiT-XL/2, 100,000 steps")
    return figure


def curves(source: Source) -> Figure:
    """Losses against steps: velocity below and above xi, and alignment. Thin lines: further seeds."""
    study = source.study
    colours = arm_colours(study)
    aligned = any(run.alignment for run in principal_runs(study))
    panels = [("velocity_low", "Velocity loss, t < xi"), ("velocity_high", "Velocity loss, t >= xi")]
    if aligned:
        panels.append(("alignment_low", "Alignment loss, t < xi"))
    figure, axes = new_figure(1, len(panels), 3.9)
    seen = set()
    for run in principal_runs(study):
        frame = source.csv(f"runs/{run.name}/metrics.csv")
        first = run.arm not in seen
        seen.add(run.arm)
        for axis, (column, _) in zip(axes[0], panels, strict=True):
            if column in frame:
                smooth = frame[column].rolling(SMOOTHING, min_periods=1).mean()
                axis.plot(
                    frame["step"],
                    smooth,
                    color=colours[run.arm],
                    linewidth=1.6 if first else 0.8,
                    alpha=1.0 if first else 0.6,
                )
    for axis, (column, title) in zip(axes[0], panels, strict=True):
        axis.set_title(title)
        axis.set_xlabel("training steps")
        if column != "alignment_low":
            log_y(axis)
    axes[0, 0].set_ylabel("mean squared error / minus cosine")
    handles = [axes[0, 0].plot([], [], color=colours[arm], label=study.arms[arm].label)[0] for arm in principal(study)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
    return figure
