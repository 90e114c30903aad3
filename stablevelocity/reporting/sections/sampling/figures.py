"""StableVS beside control and base solver; FID against network calls."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stablevelocity.reporting.figures import (
    PUBLISHED_COLOUR,
    label_of,
    legend_below,
    log_y,
    mark_published,
    panels,
    plain_log,
)
from stablevelocity.reporting.names import GRIDS, SOLVERS
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.sampling import TABLE4, XI
from stablevelocity.reporting.sections.sampling import tables as made

STYLES = {"euler": ("#0072b2", "o"), "heun": ("#009e73", "s"), "euler_maruyama": ("#d55e00", "^")}
MEASURES = {"psnr": "PSNR to the long run, dB", "fid": "FID (lower is better)"}
THINNED: dict[str, dict[str, Any]] = {
    "control": {"marker": "o", "mfc": "white", "linestyle": ""},
    "stablevs": {"marker": "*", "linestyle": ""},
}
SIZES = (5, 8)
"""Of the markers for the two values of xi that `few_step` shows."""


def stablevs(results: Results) -> Figure:
    """PSNR to the long run and FID against xi, a column per number of low-regime steps; published PSNR at the end.

    Means over the swept runs. Filled: StableVS; hollow: control on the same grid; dotted: base solver, as many calls.
    """
    table = made.stablevs(results)
    measures = [measure for measure in MEASURES if f"{measure}_stablevs" in table]
    lows = table.groupby("low_steps")
    columns = lows.ngroups + 1
    figure, axes = panels(
        columns * len(measures), columns=columns, height=2.1, margin=0.0 if len(measures) > 1 else 0.5
    )
    split, low_end, high_end = made.latent_split(results)
    for place, measure in enumerate(measures):
        row = axes[place * columns : (place + 1) * columns]
        for axis, (low, part) in zip(row, lows, strict=False):
            _lines(axis, part, measure)
            if np.isfinite(split) and split > 0:
                axis.axvspan(low_end, high_end, color="#009e73", alpha=0.15, linewidth=0)
                axis.axvline(split, color="#009e73", linestyle="--", linewidth=1, label="latents' split point")
            axis.axvline(made.PAPER_XI, color=PUBLISHED_COLOUR, linestyle="-.", linewidth=1, label="the paper's xi")
            axis.set(title=f"{low} low steps", xlabel="xi", ylabel=MEASURES[measure] if axis is row[0] else "")
        limits = np.array([axis.dataLim.intervaly for axis in row[:-1]])
        low, high = limits.min(), limits.max()
        for axis in row[:-1]:
            axis.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
            if measure == "fid":
                log_y(axis)
    # The published panel stands at the end of the first row, the legend at that of the second.
    _published(axes[columns - 1], results)
    handles, labels = axes[0].get_legend_handles_labels()
    if len(measures) > 1:
        axes[-1].axis("off")
        axes[-1].legend(handles, labels, loc="center")
    else:
        legend_below(figure, handles, labels)
    return figure


def _lines(axis: Axes, table: DataFrame, measure: str) -> None:
    for solver, part in table.groupby("solver", sort=False):
        paint, mark = STYLES[solver]
        name = SOLVERS[solver]
        base, control, ours = (part.groupby("xi")[f"{measure}_{arm}"].mean() for arm in ("base", "control", "stablevs"))
        hollow = {"marker": mark, "color": paint, "mfc": "white", "markersize": 6, "linewidth": 0.8}
        axis.plot(base, ":x", color=paint, linewidth=1, label=f"{name}, same calls")
        axis.plot(control, alpha=0.55, **hollow)
        axis.plot([], [], label=f"{name}, control", **hollow)
        axis.plot(ours, marker=mark, color=paint, markersize=3, label=f"{name} + StableVS")


def _published(axis: Axes, results: Results) -> None:
    """The paper's own sweep of xi on SD3.5-Large."""
    frame, plain = results.published(XI), results.published(TABLE4)
    axis.plot(frame["xi"], frame["psnr"], "o-", color=PUBLISHED_COLOUR)
    note: dict[str, Any] = {"textcoords": "offset points", "fontsize": "x-small"}
    for row in frame.itertuples():
        axis.annotate(f"{row.total_steps}", (row.xi, row.psnr), xytext=(4, 5), **note)
    row = (plain["model"] == "SD3.5-Large") & (plain["solver"] == "Euler") & (plain["total_steps"] == 20)
    value = plain.loc[row, "psnr"].iloc[0]
    axis.axhline(value, color=PUBLISHED_COLOUR, linestyle=":")
    axis.annotate("Euler, 20 steps", (0.7, value), xytext=(0, 4), **note)
    axis.set(xlim=(0.66, 0.94), ylim=(10, 50), xlabel="xi  (labels: total steps)", ylabel="PSNR to 30 steps, dB")
    mark_published(axis, "SD3.5, 9 low steps")


def few_step(results: Results) -> Figure:
    """FID against network calls, a panel per swept run; both axes logarithmic."""
    table = made.few_step(results)
    sizes = dict(zip(sorted(table["xi"].dropna().unique(), reverse=True), SIZES, strict=False))
    runs = table.groupby("run", sort=False)
    figure, axes = panels(runs.ngroups, 3, 2.1)
    for axis, (_, part) in zip(axes, runs, strict=True):
        _fidelity(axis, part, sizes)
        label = label_of(results.study, part["arm"].iloc[0], 30)
        axis.set(title=label, xlabel="network calls", ylabel=MEASURES["fid"] if axis is axes[0] else "")
    handles = []
    for solver in table["solver"].unique():
        paint, mark = STYLES[solver]
        handles.append(Line2D([], [], color=paint, marker=mark, label=SOLVERS[solver]))
    for xi, size in sizes.items():
        for regime, shape in THINNED.items():
            label = f"{GRIDS[regime]}, xi = {xi:g}"
            handles.append(Line2D([], [], color="#555555", markersize=size, label=label, **shape))
    legend_below(figure, handles, [handle.get_label() for handle in handles])
    return figure


def _fidelity(axis: Axes, part: DataFrame, sizes: Any) -> None:
    for solver, ours in part.groupby("solver", sort=False):
        paint, mark = STYLES[solver]
        base = ours[ours["low_regime"] == "none"].sort_values("nfe")
        axis.plot(base["nfe"], base["fid"], color=paint, marker=mark)
        for (regime, xi), thinned in ours.groupby(["low_regime", "xi"]):
            axis.plot(thinned["nfe"], thinned["fid"], color=paint, markersize=sizes[xi], **THINNED[regime])
    axis.set_xscale("log")
    plain_log(axis.xaxis, *axis.get_xlim())
    log_y(axis)
