"""Figure 1: V(t)/sqrt(d) and split points; and how the curve moves with the number of references."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stablevelocity.reporting.figures import PUBLISHED_COLOUR, band, colour, marker, new_figure
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.variance.tables import variance
from stablevelocity.reporting.spec import LAYOUT

READING_ERROR = 0.01
"""Of the published read-offs, in t."""
OTHERS = {"exact": ("--", "exact (no finite set)"), "noise": (":", "as many points of pure noise, same covariance")}
TIME = "t   (0 data, 1 noise)"


def source_label(source: str, dimension: int) -> str:
    return f"{source if source in ('pixels', 'latents') else 'mixture'}, d = {dimension:,}"


def figure1(results: Results) -> Figure:
    """Left: mixtures, empirical and exact. Middle: the study's data. Right: split points, published ones marked."""
    curves = results.csv(LAYOUT.variance_curves)
    colours = {source: colour(place + 1) for place, source in enumerate(curves["source"].unique())}
    mixture = curves["source"].str.startswith("gmm")
    panels = {"Gaussian mixtures": curves[mixture], "The data of this study": curves[~mixture]}
    panels = {title: part for title, part in panels.items() if len(part)}
    figure, axes = new_figure(1, len(panels) + 1, 3.9)
    for axis, (title, part) in zip(axes[0], panels.items(), strict=False):
        _curves(axis, part, colours)
        axis.set_title(title)
    axes[0, 0].set_ylabel("target variance V / √d")
    table = variance(results)
    _split_points(axes[0, -1], table[table["law"] == "empirical"].reset_index(drop=True), colours)
    return figure


def _curves(axis: Axes, curves: DataFrame, colours: dict[str, str]) -> None:
    for (source, law), part in curves.groupby(["source", "law"], sort=False):
        part = part.sort_values("t")
        t, dimension, paint = part["t"], part["dimension"].iloc[0], colours[source]
        scaled = part[["mean", "q15", "q85"]] / np.sqrt(dimension)
        if law in OTHERS:
            axis.plot(t, scaled["mean"], OTHERS[law][0], color=paint, linewidth=1.3)
        else:
            axis.plot(t, scaled["mean"], color=paint, label=source_label(source, dimension))
            band(axis, t, scaled["q15"], scaled["q85"], paint)
    for law in [law for law in OTHERS if (curves["law"] == law).any()]:
        line, label = OTHERS[law]
        axis.plot([], [], line, color="#333333", linewidth=1.3, label=label)
    axis.set_yscale("symlog", linthresh=0.1)
    axis.set_ylim(bottom=-0.01)
    axis.set(xlim=(0, 1), xlabel=TIME)
    axis.legend(loc="upper left")
    # Room for the legend above curves that begin high.
    axis.set_ylim(top=axis.get_ylim()[1] * 12)


def _split_points(axis: Axes, table: DataFrame, colours: dict[str, str]) -> None:
    for place, row in table.iterrows():
        paint = colours[row["source"]]
        axis.plot(row[["split_low", "split_high"]], [place] * 2, color=paint, linewidth=5, alpha=0.35)
        axis.plot(row["split_point"], place, marker(0), color=paint, markersize=7)
        axis.plot(row["rise"], place + 0.18, marker(1), mfc="white", color=paint, markersize=6)
    published = table[table["published_rise"].notna()]
    diamond: dict[str, Any] = {"marker": "D", "mfc": "white", "color": PUBLISHED_COLOUR, "linestyle": ""}
    axis.errorbar(published["published_rise"], published.index + 0.36, xerr=READING_ERROR, **diamond)
    axis.plot([], [], "o", color="#333333", label="split point (1 % of the peak)")
    axis.plot([], [], "s", mfc="white", color="#333333", label="V/√d passes 0.1")
    if len(published):
        axis.plot([], [], label="PUBLISHED: passes 0.1", **diamond)
    labels = [source_label(row.source, row.dimension).replace(", ", "\n") for row in table.itertuples()]
    axis.set_yticks(range(len(table)), labels)
    axis.set(xlim=(0, 1), ylim=(len(table) + 0.9, -0.5), xlabel="t", title="Where the variance starts")
    axis.grid(axis="y", visible=False)
    axis.legend(loc="lower left", fontsize=8.5)


def figure1_references(results: Results) -> Figure:
    """V/sqrt(d) of a mixture from ever larger sets of references beside the exact curve, and their ratio."""
    frame = results.csv(LAYOUT.variance_references).sort_values("t")
    groups = frame.groupby("source", sort=False)
    figure, axes = new_figure(1, 2 * groups.ngroups, 3.6)
    for place, (_, part) in enumerate(groups):
        left, right = axes[0, 2 * place : 2 * place + 2]
        dimension = part["dimension"].iloc[0]
        exact = part[part["law"] == "exact"]
        counts = part.dropna(subset="references").groupby("references")
        for shade, (count, curve) in zip(np.linspace(0.85, 0.1, counts.ngroups), counts, strict=True):
            look = {"color": colormaps["viridis"](shade), "label": f"M = {int(count):,}"}
            left.plot(curve["t"], curve["mean"] / np.sqrt(dimension), **look)
            if len(exact):
                right.plot(curve["t"], curve["mean"] / np.interp(curve["t"], exact["t"], exact["mean"]), **look)
        if len(exact):
            left.plot(exact["t"], exact["mean"] / np.sqrt(dimension), "--", color="black", label="exact")
        left.set_yscale("symlog", linthresh=0.1)
        left.set_ylim(bottom=-0.01)
        left.set(ylabel="target variance V / √d", title=f"Mixture, d = {dimension}", xlim=(0, 1), xlabel=TIME)
        left.legend()
        right.axhline(1, color="black", linestyle="--", linewidth=1.2)
        right.set(ylabel="V of M references / exact V", title="Share of the exact variance seen")
        right.set(xlim=(0, 1), xlabel=TIME)
    return figure
