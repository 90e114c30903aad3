"""Figures of the training runs: FID by arm, alignment over t, FID by regime, curves."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stablevelocity.reporting.figures import (
    PUBLISHED_COLOUR,
    arm_colours,
    arm_markers,
    band,
    dots,
    log_y,
    mark_published,
    new_figure,
)
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.training import FIGURE3B, principal_runs
from stablevelocity.reporting.sections.training.data import alignment_curves, by_seed, common_step, fidelity
from stablevelocity.reporting.spec import LAYOUT
from stablevelocity.study import Study
from stablevelocity.study.methods import baseline, find, principal

SMOOTHING = 5
"""Rows of metrics.csv averaged in the training curves."""
FID = "FID (lower is better)"


def training_fidelity(results: Results) -> Figure:
    """FID by arm at the last step that most arms have, every seed shown; FID against steps if several were kept."""
    study, main = results.study, results.study.sampling.main
    frame = fidelity(results, [main])
    last = common_step(frame)
    values = by_seed(frame, "fid", last, main)
    values = values.reindex([arm for arm in study.arms if arm in values.index])
    several = frame["step"].nunique() > 1
    height = max(3.4, 1.3 + 0.42 * len(values))
    figure, axes = new_figure(1, 2 if several else 1, height, [1.25, 1.0] if several else None)
    dots(axes[0, 0], study, values)
    _real_baseline(axes[0, 0], results)
    axes[0, 0].set(xlabel=FID, title=f"After {last:,} steps")
    if several:
        _against_steps(axes[0, 1], study, frame[(frame["metric"] == "fid") & frame["arm"].isin(values.index)])
    return figure


def _real_baseline(axis: Axes, results: Results) -> None:
    """The FID of real images as a line when it falls into the frame, and as a note."""
    real = results.csv(LAYOUT.real_baseline).set_index("metric").loc["fid"]
    low, high = axis.get_xlim()
    if low <= real["value"] <= high:
        axis.axvline(real["value"], color="#333333", linestyle=":", linewidth=1.2)
    text = f"{real['images']:,} real held-out images: {real['value']:.3g}"
    axis.text(0.99, 0.01, text, transform=axis.transAxes, ha="right", va="bottom", fontsize=8.5)


def _against_steps(axis: Axes, study: Study, frame: DataFrame) -> None:
    colours, markers = arm_colours(study), arm_markers(study)
    for arm, part in frame.groupby("arm", sort=False):
        seeds = part.groupby("step")["value"].agg(["mean", "min", "max"])
        axis.plot(seeds["mean"], marker=markers[arm], color=colours[arm], label=study.arms[arm].label)
        band(axis, seeds.index, seeds["min"], seeds["max"], colours[arm], 0.12)
    log_y(axis)
    axis.set(xlabel="training steps", ylabel=FID, title="Against training steps")


def figure3a(results: Results) -> Figure:
    """Alignment loss of the trained networks over t, mean over seeds; bands: 15 to 85 % of the samples."""
    study = results.study
    colours, markers = arm_colours(study), arm_markers(study)
    figure, axes = new_figure(1, 1, 3.6)
    axis = axes[0, 0]
    curves = alignment_curves(results)
    for name, line in (("label_only", "--"), ("noise_only", ":")):
        label = f"best from the {name.split('_')[0]} alone"
        axis.plot(curves.groupby("t")[name].mean(), line, color="#4d4d4d", linewidth=1.2, label=label)
    for arm, part in curves.groupby("arm", sort=False):
        seeds = part.groupby("t")[["mean", "q15", "q85"]].mean()
        look = {"marker": markers[arm], "markersize": 4, "color": colours[arm], "label": study.arms[arm].label}
        axis.plot(seeds["mean"], **look)
        band(axis, seeds.index, seeds["q15"], seeds["q85"], colours[arm], 0.08)
    for xi in dict.fromkeys(run.alignment.xi for run in principal_runs(study) if run.alignment):
        axis.axvline(xi, color="#009e73", linestyle="--", linewidth=1.2, label=f"training xi = {xi:g}")
    axis.set(xlim=(0, 1), xlabel="t   (0 data, 1 noise)", ylabel="alignment loss (minus cosine)")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def figure3b(results: Results) -> Figure:
    """FID with alignment nowhere, everywhere, below xi, above xi. Left measured, right published."""
    study, main = results.study, results.study.sampling.main
    frame = fidelity(results, [main])
    step = common_step(frame[frame["arm"].isin(principal(study))])
    values = by_seed(frame, "fid", step, main)
    regimes = ("whole", "low (hard cut)", "low (soft)", "high")
    arms = [baseline(study), *(find(study, "REPA", stablevm=False, regimes=(regime,)) for regime in regimes)]
    figure, axes = new_figure(1, 2, 3.4, [1.1, 1.0])
    left, right = axes[0]
    dots(left, study, values.reindex([arm for arm in arms if arm in values.index]))
    left.set(xlabel=FID, title=f"Measured\n{study.name}, {step:,} steps")
    published = results.published(FIGURE3B)
    places, fid = range(len(published)), published["fid_50k"]
    right.barh(places, fid, color="#e8d9a0", edgecolor=PUBLISHED_COLOUR, hatch="//", height=0.55)
    for place, value in zip(places, fid, strict=True):
        right.text(value + 0.6, place, f"{value:.2f}", va="center", fontsize=9)
    right.set_yticks(places, published["alignment"].str.replace(r"REPA (in|on) the", "REPA,", regex=True))
    right.set(xlim=(0, np.nanmax(fid) * 1.18), ylim=(len(published) - 0.5, -0.5))
    right.set_xlabel("FID of 50,000 samples, ImageNet 256")
    right.grid(axis="y", visible=False)
    mark_published(right, "SiT-XL/2, 100,000 steps")
    return figure


def training_curves(results: Results) -> Figure:
    """Losses against steps: velocity below and above xi, and alignment. Thin lines: further seeds."""
    study, runs = results.study, principal_runs(results.study)
    colours = arm_colours(study)
    titles = {"velocity_low": "Velocity loss, t < xi", "velocity_high": "Velocity loss, t >= xi"}
    if any(run.alignment for run in runs):
        titles["alignment_low"] = "Alignment loss, t < xi"
    figure, axes = new_figure(1, len(titles), 3.9)
    seen = set()
    for run in runs:
        frame = results.csv(LAYOUT.training_metrics(run.name)).set_index("step")
        look = {"linewidth": 0.8, "alpha": 0.6} if run.arm in seen else {"linewidth": 1.6}
        seen.add(run.arm)
        for axis, column in zip(axes[0], titles, strict=True):
            if column in frame:
                axis.plot(frame[column].rolling(SMOOTHING, min_periods=1).mean(), color=colours[run.arm], **look)
    for axis, (column, title) in zip(axes[0], titles.items(), strict=True):
        axis.set(title=title, xlabel="training steps")
        if column != "alignment_low":
            log_y(axis)
    axes[0, 0].set_ylabel("mean squared error / minus cosine")
    handles = [axes[0, 0].plot([], [], color=colours[arm], label=study.arms[arm].label)[0] for arm in principal(study)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
    return figure
