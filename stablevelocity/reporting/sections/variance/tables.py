"""Split points and the dependence on the number of references, as tables."""

import math

import numpy as np
import pandas as pd

from stablevelocity.reporting.source import Frame, Source

RISE = 0.1
"""V/sqrt(d) at which the paper's curves were read off as leaving 0 (config/published/figure1...)."""
SHOWN_TIMES = (0.2, 0.3, 0.5)


def variance_column(t: float) -> str:
    """Name of the column of V at t: variance_at_0_2 for 0.2 (a valid identifier)."""
    return f"variance_at_{t:g}".replace(".", "_")


def rise(curve: Frame) -> float:
    """First t at which V/sqrt(d) passes 0.1, interpolated; NaN when it starts above or never does."""
    t = curve["t"].to_numpy()
    scaled = (curve["mean"] / np.sqrt(curve["dimension"])).to_numpy()
    above = np.flatnonzero(scaled > RISE)
    if not len(above) or above[0] == 0:
        return math.nan
    k = above[0]
    return float(np.interp(RISE, scaled[k - 1 : k + 1], t[k - 1 : k + 1]))


def published_rise(source: Source) -> dict[str, float]:
    """The paper's read-off by the names of our sources; only where the data law is of the same kind."""
    frame = source.published_csv("figure1_variance_regimes.csv")
    mixtures = frame[frame["dataset"] == "GMM"]
    found = {f"gmm-{int(row.dimension)}": float(row.t_rise_read_off) for row in mixtures.itertuples()}
    study = source.study
    if study.images.dataset == "cifar10" and study.images.size == 32:
        found["pixels"] = _of(frame, "CIFAR-10")
    if study.images.dataset == "folder" and study.images.size == 256:
        found["latents"] = _of(frame, "ImageNet SD-VAE latents")
    return found


def _of(frame: Frame, dataset: str) -> float:
    return float(frame.loc[frame["dataset"] == dataset, "t_rise_read_off"].iloc[0])


def variance(source: Source) -> Frame:
    """One row per source and law: split point with its interval, peak, V at three times, published read-off."""
    curves = source.csv("variance/curves.csv")
    splits = source.csv("variance/split_points.csv")
    published = published_rise(source)
    rows = []
    for (name, law), curve in curves.groupby(["source", "law"], sort=False):
        curve = curve.sort_values("t")
        split = splits[(splits["source"] == name) & (splits["law"] == law)]
        peak = curve.loc[curve["mean"].idxmax()]
        row = {
            "source": name,
            "law": law,
            "dimension": int(peak["dimension"]),
            "samples": int(peak["samples"]),
            "split_point": float(split["xi"].iloc[0]) if len(split) else math.nan,
            "split_low": float(split["low"].iloc[0]) if len(split) else math.nan,
            "split_high": float(split["high"].iloc[0]) if len(split) else math.nan,
            "rise": rise(curve),
            "peak_t": peak["t"],
            "peak_scaled": peak["mean"] / math.sqrt(peak["dimension"]),
        }
        for t in SHOWN_TIMES:
            row[variance_column(t)] = float(np.interp(t, curve["t"], curve["mean"]))
        row["published_rise"] = published.get(str(name), math.nan) if law == "empirical" else math.nan
        rows.append(row)
    return pd.DataFrame(rows)


def references(source: Source) -> Frame:
    """V(t) by the size M of the empirical law, one column per M and one for the exact law."""
    frame = source.csv("variance/references.csv")
    frame["column"] = [
        "exact" if law == "exact" else f"references_{int(count)}"
        for law, count in zip(frame["law"], frame["references"], strict=True)
    ]
    columns = list(dict.fromkeys(frame["column"]))
    wide = frame.pivot_table(index=["source", "dimension", "t"], columns="column", values="mean")
    return wide[columns].reset_index()
