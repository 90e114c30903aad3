"""Figures of the training runs: FID by arm, figure 3 (alignment over t, FID by regime), curves."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stablevelocity.reporting.figures import (
    PUBLISHED_COLOUR,
    arm_looks,
    band,
    dots,
    legend_below,
    log_y,
    mark_published,
    mean_and_range,
    panels,
)
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.training import FIGURE3B, of_regimes, principal_runs, tables
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
    figure, axes = panels(
        2 if several else 1, height=max(1.8, 1.0 + 0.3 * len(values)), widths=[1.25, 1.0][: 1 + several]
    )
    dots(axes[0], study, values)
    _real_baseline(axes[0], results)
    axes[0].set_title(f"After {last:,} steps")
    if several:
        _against_steps(axes[1], study, frame[(frame["metric"] == "fid") & frame["arm"].isin(values.index)])
    return figure


def _real_baseline(axis: Axes, results: Results) -> None:
    """The FID of real images as a line when it falls into the frame, and below the axis."""
    real = results.csv(LAYOUT.real_baseline).set_index("metric").loc["fid"]
    low, high = axis.get_xlim()
    is_within = low <= real["value"] <= high
    if is_within:
        axis.axvline(real["value"], color="#333333", linestyle=":", linewidth=1)
    sign = " (dotted)" if is_within else ""
    axis.set_xlabel(f"{FID}\n{real['images']:,} real images: {real['value']:.3g}{sign}")


def _against_steps(axis: Axes, study: Study, frame: DataFrame) -> None:
    looks = arm_looks(study)
    for arm, part in frame.groupby("arm", sort=False):
        mean_and_range(axis, part, "step", "value", **looks[arm])
    log_y(axis)
    axis.set(xlabel="training steps", ylabel=FID, title="Against training steps")


def figure3(results: Results) -> Figure:
    """Alignment over t; FID with alignment nowhere, everywhere, below xi, above xi: measured, and the paper's own."""
    parts = [_alignment, *([_by_regime] if of_regimes(results.study) else []), _published_by_regime]
    figure, axes = panels(len(parts), height=2.5)
    for axis, draw in zip(axes, parts, strict=True):
        draw(axis, results)
    legend_below(figure, *axes[0].get_legend_handles_labels())
    return figure


def _alignment(axis: Axes, results: Results) -> None:
    """Alignment loss of the trained networks over t, mean over seeds; bands: 15 to 85 % of the samples."""
    study = results.study
    looks = arm_looks(study)
    curves = alignment_curves(results)
    for name, line in (("label_only", "--"), ("noise_only", ":")):
        label = f"best from the {name.split('_')[0]} alone"
        axis.plot(curves.groupby("t")[name].mean(), line, color="#4d4d4d", linewidth=1, label=label)
    for arm, part in curves.groupby("arm", sort=False):
        seeds = part.groupby("t")[["mean", "q15", "q85"]].mean()
        axis.plot(seeds["mean"], markersize=2.5, **looks[arm])
        band(axis, seeds.index, seeds["q15"], seeds["q85"], looks[arm]["color"], 0.08)
    for xi in dict.fromkeys(run.alignment.xi for run in principal_runs(study) if run.alignment):
        axis.axvline(xi, color="#009e73", linestyle="--", linewidth=1, label=f"training xi = {xi:g}")
    axis.set(xlim=(0, 1), title="Alignment of the trained networks")
    axis.set(xlabel="t   (0 data, 1 noise)", ylabel="alignment loss (minus cosine)")


def _by_regime(axis: Axes, results: Results) -> None:
    study, main = results.study, results.study.sampling.main
    frame = fidelity(results, [main])
    step = common_step(frame[frame["arm"].isin(principal(study))])
    values = by_seed(frame, "fid", step, main)
    regimes = ("whole", "low (hard cut)", "low (soft)", "high")
    arms = [baseline(study), *(find(study, "REPA", regimes=(regime,)) for regime in regimes)]
    dots(axis, study, values.reindex([arm for arm in arms if arm in values.index]))
    axis.set(xlabel=FID, title=f"Measured: {study.name}, {step:,} steps")


def _published_by_regime(axis: Axes, results: Results) -> None:
    published = results.published(FIGURE3B)
    places, fid = range(len(published)), published["fid_50k"]
    axis.barh(places, fid, color="#e8d9a0", edgecolor=PUBLISHED_COLOUR, hatch="//", height=0.55)
    for place, value in zip(places, fid, strict=True):
        axis.text(value + 0.6, place, f"{value:.2f}", va="center", fontsize="small")
    names = published["alignment"].str.replace(r"(REPA) (in|on) the |(none) ", r"\1\3\n", regex=True)
    axis.set_yticks(places, names.str.replace("-variance regime", " variance"))
    axis.set(xlim=(0, np.nanmax(fid) * 1.4), ylim=(len(published) - 0.5, -0.5))
    axis.set_xlabel("FID, ImageNet 256")
    axis.grid(axis="y", visible=False)
    mark_published(axis, "SiT-XL/2, 100,000 steps")


def training_curves(results: Results) -> Figure:
    """Losses against steps: velocity below and above xi, and alignment. Thin lines: further seeds."""
    runs, looks = principal_runs(results.study), arm_looks(results.study)
    titles = {"velocity_low": "Velocity loss, t < xi", "velocity_high": "Velocity loss, t ≥ xi"}
    if any(run.alignment for run in runs):
        titles["alignment_low"] = "Alignment loss, t < xi"
    figure, axes = panels(len(titles), height=2.1)
    drawn = {}
    for run in runs:
        frame = results.csv(LAYOUT.training_metrics(run.name)).set_index("step")
        look = {"linewidth": 0.6, "alpha": 0.6, "marker": None} if run.arm in drawn else {"linewidth": 1.2}
        for axis, column in zip(axes, titles, strict=True):
            if column in frame:
                smooth = frame[column].rolling(SMOOTHING, min_periods=1).mean().iloc[::SMOOTHING]
                line = axis.plot(smooth, markevery=[-1], **{**looks[run.arm], **look})
                drawn.setdefault(run.arm, line[0])
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        axis.set(title=title, xlabel="training steps")
        if column != "alignment_low":
            log_y(axis)
    axes[0].set_ylabel("mean squared error")
    axes[-1].set_ylabel("minus cosine" if "alignment_low" in titles else "")
    legend_below(figure, list(drawn.values()), [looks[arm]["label"] for arm in drawn])
    return figure


def gradient_variance(results: Results) -> Figure:
    """Variance of a batch's gradient against training steps with either target, first run; its ratio in every run."""
    table = tables.gradient_variance(results)
    runs = list(table["run"].unique())
    first = table[table["run"] == runs[0]].set_index("step")
    figure, axes = panels(2, height=2.1)
    for column, label, look in (
        ("variance_cfm", "CFM", "#4d4d4d"),
        ("variance_stablevm", "StableVM", "#0072b2"),
        ("mean_square_cfm", "squared norm of the mean", "#999999"),
    ):
        axes[0].plot(first[column].where(first[column] > 0), marker="o", markersize=3, color=look, label=label)
    log_y(axes[0])
    axes[0].set(xlabel="training steps", title=f"Variance of a batch's gradient, {runs[0]}")
    for run, part in table.groupby("run", sort=False):
        ratio = part.set_index("step")
        line = axes[1].plot(ratio["ratio"], marker="o", markersize=3, label=run)[0]
        band(axes[1], ratio.index, ratio["ratio_low"], ratio["ratio_high"], line.get_color(), 0.2)
    axes[1].axhline(1, color="#333333", linestyle=":", linewidth=1)
    axes[1].set(xlabel="training steps", title="StableVM / CFM", ylim=(0, None))
    if len(runs) > 1:
        axes[1].legend(fontsize="small")
    legend_below(figure, *axes[0].get_legend_handles_labels())
    return figure
