"""Figure 1: V(t)/sqrt(d) and split points, and how the curve moves with the number of references; figure 2."""

from itertools import chain
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stablevelocity.data.shards import ShardSet, random_rows
from stablevelocity.reporting.figures import (
    PUBLISHED_COLOUR,
    band,
    colour,
    is_wide,
    legend_below,
    marker,
    mosaic,
    panels,
)
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.variance.tables import variance
from stablevelocity.reporting.spec import LAYOUT

READING_ERROR = 0.01
"""Of the published read-offs, in t."""
OTHERS = {"exact": ("--", "exact (no finite set)"), "noise": (":", "as many points of noise")}
TIME = "t   (0 data, 1 noise)"


def source_label(source: str, dimension: int) -> str:
    return f"{source if source in ('pixels', 'latents') else 'mixture'}, d = {dimension:,}"


def figure1(results: Results) -> Figure:
    """Left: mixtures, empirical and exact. Middle: the study's data. Right: split points, published ones marked."""
    curves = results.csv(LAYOUT.variance_curves)
    colours = {source: colour(place + 1) for place, source in enumerate(curves["source"].unique())}
    mixture = curves["source"].str.startswith("gmm")
    parts = {"Gaussian mixtures": curves[mixture], "The data of this study": curves[~mixture]}
    parts = {title: part for title, part in parts.items() if len(part)}
    figure, axes = panels(len(parts) + 1, height=2.4)
    for axis, (title, part) in zip(axes, parts.items(), strict=False):
        _curves(axis, part, colours)
        axis.set(title=title, ylabel="target variance V / √d" if axis is axes[0] else "")
    table = variance(results)
    _split_points(axes[-1], table[table["law"] == "empirical"].reset_index(drop=True), colours)
    named = [axis.get_legend_handles_labels() for axis in axes]
    legend_below(figure, *([*chain(*parts)] for parts in zip(*named, strict=True)))
    return figure


def _curves(axis: Axes, curves: DataFrame, colours: dict[str, str]) -> None:
    for (source, law), part in curves.groupby(["source", "law"], sort=False):
        part = part.sort_values("t")
        t, dimension, paint = part["t"], part["dimension"].iloc[0], colours[source]
        scaled = part[["mean", "q15", "q85"]] / np.sqrt(dimension)
        if law in OTHERS:
            axis.plot(t, scaled["mean"], OTHERS[law][0], color=paint, linewidth=1)
        else:
            axis.plot(t, scaled["mean"], color=paint, label=source_label(source, dimension))
            band(axis, t, scaled["q15"], scaled["q85"], paint)
    for law in [law for law in OTHERS if (curves["law"] == law).any()]:
        line, label = OTHERS[law]
        axis.plot([], [], line, color="#333333", linewidth=1, label=label)
    axis.set_yscale("symlog", linthresh=0.1)
    axis.set(xlim=(0, 1), xlabel=TIME)
    axis.set_ylim(bottom=-0.01)


def _split_points(axis: Axes, table: DataFrame, colours: dict[str, str]) -> None:
    for place, row in table.iterrows():
        paint = colours[row["source"]]
        axis.plot(row[["split_low", "split_high"]], [place] * 2, color=paint, linewidth=4, alpha=0.35)
        axis.plot(row["split_point"], place, marker(0), color=paint, markersize=5)
        axis.plot(row["rise"], place + 0.18, marker(1), mfc="white", color=paint, markersize=4)
    published = table[table["published_rise"].notna()]
    diamond: dict[str, Any] = {"marker": "D", "mfc": "white", "color": PUBLISHED_COLOUR, "linestyle": ""}
    axis.errorbar(published["published_rise"], published.index + 0.36, xerr=READING_ERROR, **diamond)
    axis.plot([], [], "o", color="#333333", label="split point (1 % of the peak)")
    axis.plot([], [], "s", mfc="white", color="#333333", label="V/√d passes 0.1")
    if len(published):
        axis.plot([], [], label="PUBLISHED: passes 0.1", **diamond)
    labels = [source_label(row.source, row.dimension).replace(", ", "\n") for row in table.itertuples()]
    axis.set_yticks(range(len(table)), labels)
    axis.set(xlim=(0, 1), ylim=(len(table) - 0.3, -0.5), xlabel="t", title="Split points")
    axis.grid(axis="y", visible=False)


def figure1_references(results: Results) -> Figure:
    """V/sqrt(d) of a mixture from ever larger sets of references beside the exact curve, and their ratio."""
    frame = results.csv(LAYOUT.variance_references).sort_values("t")
    groups = frame.groupby("source", sort=False)
    figure, axes = panels(2 * groups.ngroups, columns=2, height=2.6)
    for place, (_, part) in enumerate(groups):
        left, right = axes[2 * place : 2 * place + 2]
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
        right.axhline(1, color="black", linestyle="--", linewidth=1)
        right.set(ylabel="V of M references / exact V", title="Share of the exact variance seen")
        right.set(xlim=(0, 1), xlabel=TIME)
    legend_below(figure, *axes[0].get_legend_handles_labels())
    return figure


def figure2(results: Results) -> Figure:
    """A real image noised to three times, its likeliest origins with their weights, and the mean of all by weight."""
    study, splits = results.study, results.csv(LAYOUT.split_points).set_index(["source", "law"])["xi"]
    images = ShardSet(results.folder / LAYOUT.image_manifest("train"), checksums=False)
    rows = random_rows(len(images), study.variance.data_samples, study.variance.seed)
    references = images.rows("images", rows).astype(np.float32) / 127.5 - 1
    rng = np.random.default_rng(study.variance.seed)
    clean, noise = references[rng.integers(len(references))], rng.standard_normal(references[0].shape)
    xi = float(splits["pixels", "empirical"])
    times = {"below": 0.8 * xi, "above": xi + (1 - xi) / 3, "far above": xi + (1 - xi) * 2 / 3}
    figure, axes = panels(len(times), columns=1, height=0.95)
    for axis, (side, t) in zip(axes, times.items(), strict=True):
        noised = (1 - t) * clean + t * noise
        weights = origin_weights(noised, references, t)
        likeliest = np.argsort(-weights)[: 8 if is_wide() else 5]
        labels = ["noised", *(f"{weight:.2f}" for weight in weights[likeliest]), "mean"]
        shown = np.stack([noised, *references[likeliest], np.tensordot(weights, references, 1)])
        mosaic(axis, ((shown.clip(-1, 1) + 1) * 127.5).astype(np.uint8)[None], columns=labels)
        axis.set_title(f"t = {t:.2f}, {side} the split point {xi:.2f}")
    return figure


def origin_weights(noised: np.ndarray, references: np.ndarray, t: float) -> np.ndarray:
    """Posterior probability of each reference to be what was noised, on the linear path: they add up to 1.

    softmax(-|x_t - (1 - t) x_i|^2 / 2 t^2), equation 6 of the paper for references with equal chances.
    """
    distances = np.square(noised - (1 - t) * references, dtype=np.float64).reshape(len(references), -1).sum(1)
    weights = np.exp((distances.min() - distances) / (2 * t * t))
    return weights / weights.sum()
