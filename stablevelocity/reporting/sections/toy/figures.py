"""The toy experiment's figures: error to the truth, variances, cost."""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stablevelocity.reporting.describe import departures
from stablevelocity.reporting.figures import is_wide, legend_below, log_y, mean_and_range, panels
from stablevelocity.reporting.format import counted
from stablevelocity.reporting.names import OBJECTIVES
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.spec import LAYOUT

STYLES = {"cfm": ("#4d4d4d", "o", "-"), "stf": ("#d55e00", "^", "--"), "stablevm": ("#0072b2", "s", "-")}
PARTS = {
    "seconds_update": ("network, forward and backward", "#4d4d4d"),
    "seconds_drawing": ("drawing the samples", "#56b4e9"),
    "seconds_target": ("the target", "#d55e00"),
}


def protocol(results: Results) -> str:
    """How the toy was run, and whether that is the paper's protocol."""
    toy = results.study.toy
    assert toy is not None
    different = departures(toy)
    text = (
        f"NOT THE FULL PROTOCOL: {'; '.join(different)}"
        if different
        else (
            f"Full protocol: {toy.updates:,} updates, batch {toy.batch}, {toy.references:,} references, "
            f"{counted(len(toy.seeds), 'seed')}"
        )
    )
    return textwrap.fill(text, 110 if is_wide() else 55)


def _lines(axis: Axes, frame: DataFrame, x: str, y: str, markevery: list[int] | None) -> None:
    """Mean and range over seeds by objective."""
    for objective, part in frame.groupby("objective", sort=False):
        paint, mark, line = STYLES[objective]
        look = {"color": paint, "marker": mark, "linestyle": line, "markevery": markevery}
        # A logarithmic axis has no 0: points far below the split point give it.
        mean_and_range(axis, part[part[y] > 0], x, y, label=OBJECTIVES[objective], **look)
    log_y(axis)


def toy_error(results: Results) -> Figure:
    """Squared error to the exact velocity against updates, one panel per time; band: lowest to highest seed."""
    frame = results.csv(LAYOUT.toy("error"))
    times = frame.groupby("t")
    figure, axes = panels(times.ngroups, height=2.1, margin=0.2)
    for axis, (t, part) in zip(axes, times, strict=True):
        _lines(axis, part, "update", "error", [-1])
        axis.set(title=f"t = {t:g}", xlabel="updates", ylabel="squared error" if axis is axes[0] else "")
        axis.locator_params(axis="x", nbins=3)
    legend_below(figure, *axes[0].get_legend_handles_labels())
    figure.suptitle(protocol(results), fontsize="medium")
    return figure


def toy_variance(results: Results) -> Figure:
    """Variance of the target and of the gradient against t."""
    figure, axes = panels(2, height=2.5, margin=0.2)
    for axis, what, label in zip(axes, ("target", "gradient"), ("trace", "per-parameter trace"), strict=True):
        _lines(axis, results.csv(LAYOUT.toy(f"{what}_variance")), "t", "variance", None)
        axis.set(title=f"Variance of the {what}", ylabel=f"{label} of the covariance", xlabel="t   (0 data, 1 noise)")
    legend_below(figure, *axes[0].get_legend_handles_labels())
    figure.suptitle(protocol(results), fontsize="medium")
    return figure


def toy_cost(results: Results) -> Figure:
    """Time of one training step against the number of references, in its parts; n = 0 is CFM."""
    frame = results.csv(LAYOUT.toy("cost")).sort_values("references")
    figure, (axis,) = panels(1, height=2.3)
    places, bottom = np.arange(len(frame)), np.zeros(len(frame))
    for part, (label, paint) in PARTS.items():
        height = 1e3 * frame[part].to_numpy()
        axis.bar(places, height, 0.6, bottom, color=paint, label=label)
        bottom += height
    axis.bar_label(axis.containers[-1], [f"{total:.2f}" for total in bottom], padding=2, fontsize="small")
    axis.set_xticks(places, [f"{count:,}" if count else "CFM" for count in frame["references"]])
    axis.set(ylim=(0, 1.4 * bottom.max()), xlabel="references of the StableVM target")
    axis.set_ylabel("milliseconds per training step")
    axis.grid(axis="x", visible=False)
    axis.legend(loc="upper left")
    return figure
