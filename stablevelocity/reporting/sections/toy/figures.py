"""The toy experiment's figures: error to the truth, variances, cost."""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stablevelocity.reporting.describe import count_text
from stablevelocity.reporting.figures import log_y, new_figure
from stablevelocity.reporting.sections.toy.protocol import departures
from stablevelocity.reporting.source import Source

STYLES = {
    "cfm": ("CFM", "#4d4d4d", "o", "-"),
    "stf": ("STF", "#d55e00", "^", "--"),
    "stablevm": ("StableVM", "#0072b2", "s", "-"),
}


PARTS = (
    ("seconds_update", "network, forward and backward", "#4d4d4d"),
    ("seconds_drawing", "drawing the samples", "#56b4e9"),
    ("seconds_target", "the target", "#d55e00"),
)


def protocol(source: Source) -> str:
    """How the toy was run, and whether that is the paper's protocol."""
    toy = source.study.toy
    assert toy is not None
    text = f"{toy.updates:,} updates, batch {toy.batch}, {toy.references:,} references, "
    text += count_text(len(toy.seeds), "seed")
    found = departures(toy)
    return textwrap.fill("NOT THE FULL PROTOCOL: " + "; ".join(found) if found else f"Full protocol: {text}", 100)


def error(source: Source) -> Figure:
    """Squared error to the exact velocity against updates, one panel per time; band: lowest to highest seed."""
    frame = source.csv("toy/error.csv")
    times = sorted(frame["t"].unique())
    columns = min(len(times), 4)
    rows = -(-len(times) // columns)
    figure, axes = new_figure(rows, columns, 3.3 * rows + 0.3)
    for axis, t in zip(axes.flat, times, strict=False):
        for objective, part in frame[frame["t"] == t].groupby("objective", sort=False):
            label, paint, mark, line = STYLES[str(objective)]
            by_update = part.groupby("update")["error"]
            mean = by_update.mean()
            axis.plot(mean.index, mean, line, color=paint, label=label)
            axis.plot(mean.index[-1], mean.iloc[-1], mark, color=paint)
            axis.fill_between(mean.index, by_update.min(), by_update.max(), color=paint, alpha=0.18, linewidth=0)
        log_y(axis)
        axis.set_title(f"t = {t:g}")
        axis.set_xlabel("updates")
        axis.tick_params(axis="x", labelsize=8.5)
    for axis in axes.flat[len(times) :]:
        axis.set_visible(False)
    axes[0, 0].set_ylabel("squared error to the exact velocity")
    axes[0, 0].legend()
    figure.suptitle(protocol(source), fontsize=9.5)
    return figure


def variance(source: Source) -> Figure:
    """Variance of the target and of the gradient against t."""
    figure, axes = new_figure(1, 2, 3.6)
    for axis, name, title in (
        (axes[0, 0], "toy/target_variance.csv", "Variance of the target"),
        (axes[0, 1], "toy/gradient_variance.csv", "Variance of the gradient"),
    ):
        _variance(axis, source, name)
        axis.set_title(title)
    axes[0, 0].set_ylabel("trace of the covariance")
    axes[0, 1].set_ylabel("per-parameter trace of the covariance")
    axes[0, 0].legend()
    figure.suptitle(protocol(source), fontsize=9.5)
    return figure


def _variance(axis: Axes, source: Source, name: str) -> None:
    for objective, part in source.csv(name).groupby("objective", sort=False):
        label, paint, mark, line = STYLES[str(objective)]
        by_time = part.groupby("t")["variance"]
        mean = by_time.mean()
        # A logarithmic axis has no 0: an empirical law far below the split point gives it.
        shown = mean[mean > 0]
        axis.plot(shown.index, shown, line, marker=mark, color=paint, label=label)
        if (by_time.count() > 1).any():
            low, high = by_time.min()[shown.index], by_time.max()[shown.index]
            axis.fill_between(shown.index, low, high, color=paint, alpha=0.18, linewidth=0)
    log_y(axis)
    axis.set_xlabel("t   (0 data, 1 noise)")


def cost(source: Source) -> Figure:
    """Time of one training step against the number of references, in its parts; n = 0 is CFM."""
    frame = source.csv("toy/cost.csv").sort_values("references")
    figure, axes = new_figure(1, 1, 3.2)
    axis = axes[0, 0]
    places = np.arange(len(frame))
    bottom = np.zeros(len(frame))
    for name, label, paint in PARTS:
        height = 1e3 * frame[name].to_numpy()
        axis.bar(places, height, 0.6, bottom, color=paint, label=label)
        bottom += height
    axis.bar_label(axis.containers[-1], [f"{total:.2f}" for total in bottom], padding=2, fontsize=9)
    axis.set_xticks(places, ["CFM" if not count else f"n = {count:,}" for count in frame["references"]])
    axis.set_ylim(0, 1.15 * bottom.max())
    axis.grid(axis="x", visible=False)
    axis.set_xlabel("references of the StableVM target")
    axis.set_ylabel("milliseconds per training step")
    axis.legend(loc="upper left")
    return figure
