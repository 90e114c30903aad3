"""Figure 1: V(t)/sqrt(d) and split points; and how the curve moves with the number of references."""

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stablevelocity.reporting.figures import PUBLISHED_COLOUR, colour, marker, new_figure
from stablevelocity.reporting.sections.variance.tables import variance
from stablevelocity.reporting.source import Frame, Source

READING_ERROR = 0.03
"""Of the published read-offs, in t."""


def source_label(name: str, dimension: int) -> str:
    kind = {"pixels": "pixels", "latents": "latents"}.get(name, "mixture")
    return f"{kind}, d = {dimension:,}"


def figure1(source: Source) -> Figure:
    """Left: mixtures, empirical and exact law. Middle: the study's data. Right: split points, published marked."""
    curves = source.csv("variance/curves.csv")
    names = list(dict.fromkeys(curves["source"]))
    mixtures = [name for name in names if name.startswith("gmm")]
    data = [name for name in names if not name.startswith("gmm")]
    panels = [chosen for chosen in (mixtures, data) if chosen]
    figure, axes = new_figure(1, len(panels) + 1, 3.9, [1.0] * (len(panels) + 1))
    for place, chosen in enumerate(panels):
        titles = {id(mixtures): "Gaussian mixtures", id(data): "The data of this study"}
        _curves(axes[0, place], curves, chosen, names)
        axes[0, place].set_title(titles[id(chosen)])
    axes[0, 0].set_ylabel("target variance V / √d")
    _split_points(axes[0, -1], variance(source), names)
    return figure


def _curves(axes: Axes, curves: Frame, chosen: list[str], names: list[str]) -> None:
    for name in chosen:
        for law, part in curves[curves["source"] == name].groupby("law"):
            part = part.sort_values("t")
            dimension = int(part["dimension"].iloc[0])
            root = math.sqrt(dimension)
            paint = colour(names.index(name) + 1)
            if law == "exact":
                axes.plot(part["t"], part["mean"] / root, "--", color=paint, linewidth=1.3)
                continue
            axes.plot(part["t"], part["mean"] / root, color=paint, label=source_label(name, dimension))
            axes.fill_between(part["t"], part["q15"] / root, part["q85"] / root, color=paint, alpha=0.18, linewidth=0)
    if "exact" in set(curves[curves["source"].isin(chosen)]["law"]):
        axes.plot([], [], "--", color="#333333", linewidth=1.3, label="exact law (no finite set)")
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylim(bottom=-0.01)
    axes.set_xlim(0, 1)
    axes.set_xlabel("t   (0 data, 1 noise)")
    axes.legend(loc="upper left")
    # Room for the legend above curves that begin high.
    axes.set_ylim(top=axes.get_ylim()[1] * 12)


def _split_points(axes: Axes, table: Frame, names: list[str]) -> None:
    table = table[table["law"] == "empirical"].reset_index(drop=True)
    for place, row in enumerate(table.itertuples()):
        index = names.index(row.source) + 1
        axes.plot([row.split_low, row.split_high], [place] * 2, color=colour(index), linewidth=5, alpha=0.35)
        axes.plot(row.split_point, place, marker(0), color=colour(index), markersize=7)
        axes.plot(row.rise, place + 0.18, marker(1), mfc="white", color=colour(index), markersize=6)
        if np.isfinite(row.published_rise):
            axes.errorbar(
                row.published_rise, place + 0.36, xerr=READING_ERROR, fmt="D", mfc="white", color=PUBLISHED_COLOUR
            )
    axes.plot([], [], "o", color="#333333", label="split point (1 % of the peak)")
    axes.plot([], [], "s", mfc="white", color="#333333", label="V/√d passes 0.1")
    if table["published_rise"].notna().any():
        axes.plot([], [], "D", mfc="white", color=PUBLISHED_COLOUR, label="PUBLISHED: passes 0.1 (by eye)")
    axes.set_yticks(
        range(len(table)), [source_label(row.source, row.dimension).replace(", ", "\n") for row in table.itertuples()]
    )
    axes.set_ylim(len(table) + 0.9, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("t")
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower left", fontsize=8.5)
    axes.set_title("Where the variance starts")


def figure1_references(source: Source) -> Figure:
    """V/sqrt(d) of one mixture from ever larger sets of references, and the exact curve."""
    frame = source.csv("variance/references.csv")
    names = list(dict.fromkeys(frame["source"]))
    figure, axes = new_figure(1, 2 * len(names), 3.6)
    for place, name in enumerate(names):
        part = frame[frame["source"] == name]
        root = math.sqrt(part["dimension"].iloc[0])
        exact = part[part["law"] == "exact"].sort_values("t")
        counts = sorted(part["references"].dropna().unique())
        shades = colormaps["viridis"](np.linspace(0.85, 0.1, len(counts)))
        left, right = axes[0, 2 * place], axes[0, 2 * place + 1]
        for count, shade in zip(counts, shades, strict=True):
            curve = part[part["references"] == count].sort_values("t")
            left.plot(curve["t"], curve["mean"] / root, color=shade, label=f"M = {int(count):,}")
            if len(exact):
                truth = np.interp(curve["t"], exact["t"], exact["mean"])
                right.plot(curve["t"], curve["mean"] / truth, color=shade, label=f"M = {int(count):,}")
        if len(exact):
            left.plot(exact["t"], exact["mean"] / root, "--", color="black", label="exact law")
        left.set_yscale("symlog", linthresh=0.1)
        left.set_ylim(bottom=-0.01)
        left.set_ylabel("target variance V / √d")
        left.set_title(f"Mixture, d = {int(part['dimension'].iloc[0])}")
        left.legend()
        right.axhline(1, color="black", linestyle="--", linewidth=1.2)
        right.set_ylabel("V of M references / exact V")
        right.set_title("Share of the exact variance seen")
        for each in (left, right):
            each.set_xlim(0, 1)
            each.set_xlabel("t   (0 data, 1 noise)")
    return figure
