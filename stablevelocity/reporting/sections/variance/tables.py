"""Split points and the dependence on the number of references."""

import math

import numpy as np
import pandas as pd

from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.spec import LAYOUT

RISE = 0.1
"""V/sqrt(d) at which the paper's curves were read off as leaving 0 (config/published/figure1...)."""
SHOWN_TIMES = (0.2, 0.3, 0.5)


def variance_column(t: float) -> str:
    """Name of the column of V at t: variance_at_0_2 for 0.2 (a valid identifier)."""
    return f"variance_at_{t:g}".replace(".", "_")


def rise(curve: DataFrame) -> float:
    """First t at which V/sqrt(d) passes 0.1, interpolated; NaN when it starts above or never does."""
    t = curve["t"].to_numpy()
    scaled = (curve["mean"] / np.sqrt(curve["dimension"])).to_numpy()
    above = np.flatnonzero(scaled > RISE)
    if not len(above) or above[0] == 0:
        return math.nan
    k = above[0]
    return float(np.interp(RISE, scaled[k - 1 : k + 1], t[k - 1 : k + 1]))


def read_offs(results: Results) -> DataFrame:
    """The paper's rise and peak by the names of our sources; only where the data is of the same kind."""
    frame, images = results.published("figure1_variance_regimes.csv"), results.study.images
    sources = {"GMM": "gmm-" + frame["dimension"].astype(str)}
    if images.dataset == "cifar10" and images.size == 32:
        sources["CIFAR-10"] = "pixels"
    if images.dataset == "folder" and images.size == 256:
        sources["ImageNet SD-VAE latents"] = "latents"
    named = [frame[frame["dataset"] == dataset].assign(source=source) for dataset, source in sources.items()]
    return pd.concat(named).set_index("source")[["t_rise_read_off", "peak_read_off"]]


def variance(results: Results) -> DataFrame:
    """One row per source and distribution: split point with interval, peak, V at three times, the paper's read-offs."""
    splits = results.csv(LAYOUT.split_points).set_index(["source", "law"])[["xi", "low", "high"]]
    published = read_offs(results)
    rows = []
    for (source, law), curve in results.csv(LAYOUT.variance_curves).groupby(["source", "law"], sort=False):
        curve = curve.sort_values("t")
        peak = curve.loc[curve["mean"].idxmax()]
        row = {"source": source, "law": law, "dimension": int(peak["dimension"]), "samples": int(peak["samples"])}
        split = splits.reindex([(source, law)]).iloc[0]
        row |= dict(zip(("split_point", "split_low", "split_high"), split, strict=True))
        row |= {"rise": rise(curve), "peak_t": peak["t"], "peak_scaled": peak["mean"] / math.sqrt(peak["dimension"])}
        row |= {variance_column(t): np.interp(t, curve["t"], curve["mean"]) for t in SHOWN_TIMES}
        row["least_of_peak"] = curve["mean"].min() / peak["mean"]
        known = published.reindex([source if law == "empirical" else ""]).iloc[0]
        rows.append(row | dict(zip(("published_rise", "published_peak"), known, strict=True)))
    return pd.DataFrame(rows)


def references(results: Results) -> DataFrame:
    """V(t) by the number M of points taken as the distribution, one column per M and one for the exact one."""
    frame = results.csv(LAYOUT.variance_references)
    counts = frame["references"].map("references_{:.0f}".format)
    frame["column"] = counts.mask(frame["law"] == "exact", "exact")
    wide = frame.pivot_table(index=["source", "dimension", "t"], columns="column", values="mean")
    return wide[frame["column"].unique()].reset_index()
