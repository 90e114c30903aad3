"""A set of generated images against a reference: one table with every metric, its interval and its counts."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.evaluation import intervals
from stablevelocity.evaluation.features import Extractor, FeatureStore, extract_features
from stablevelocity.evaluation.fidelity import (
    GaussianStatistics,
    Table,
    frechet_distance,
    gaussian_statistics,
    inception_score,
    precision_recall,
)
from stablevelocity.evaluation.image_sets import open_images


@dataclass
class Reference:
    """What generated images are held against.

    `pool` and `spatial` are the statistics for FID and sFID; `features` are the pool features of the images that
    precision and recall use. In a published batch these are fewer (10,000) than those behind the statistics.
    """

    pool: GaussianStatistics
    spatial: GaussianStatistics
    features: Float[Tensor, "n d"]
    extractor: str
    floor: intervals.Floor | None = None
    """FID between halves of the real features; None where the statistics are published ones."""


def reference_from_features(store: FeatureStore, *, seed: int = 0) -> Reference:
    """The features of a set of real images as the reference, with the floor between its halves."""
    return Reference(
        gaussian_statistics(store.column("pool")),
        gaussian_statistics(store.column("spatial")),
        store.column("pool").tensor(),
        store.extractor,
        intervals.real_floor(store.column("pool"), seed=seed),
    )


def adm_reference(path: Path | str, extractor: Extractor, folder: Path | str) -> Reference:
    """An official ADM reference batch: its stored statistics, and features of its images for precision and recall.

    Without stored statistics (a sample batch used as reference) they are computed from `arr_0`, as ADM does.
    The features are kept in `folder`.
    """
    store = extract_features(open_images(path), extractor, Path(folder) / "features.json")
    stored = read_adm_statistics(path)
    if stored is None:
        return reference_from_features(store)
    pool, spatial = stored
    features = store.column("pool").tensor()
    if len(pool.mean) != features.shape[1]:
        raise UserError(
            f"{path}: statistics of {len(pool.mean)} features, but extractor {extractor.name!r} gives "
            f"{features.shape[1]}"
        )
    return Reference(pool, spatial, features, store.extractor)


def read_adm_statistics(path: Path | str) -> tuple[GaussianStatistics, GaussianStatistics] | None:
    """`mu`, `sigma`, `mu_s`, `sigma_s` of an ADM `.npz` in float64, or None when it holds no `mu`.

    Raises UserError when some are missing, or their shapes do not fit each other, or they are not finite.
    """
    names = ("mu", "sigma", "mu_s", "sigma_s")
    with np.load(path, allow_pickle=False) as archive:
        if "mu" not in archive:
            return None
        missing = [name for name in names if name not in archive]
        if missing:
            raise UserError(f"{path}: holds mu but not {', '.join(missing)}")
        arrays = {name: torch.from_numpy(archive[name]).double() for name in names}
    for mean, covariance in (("mu", "sigma"), ("mu_s", "sigma_s")):
        d = arrays[mean].numel()
        if arrays[mean].shape != (d,) or arrays[covariance].shape != (d, d):
            raise UserError(
                f"{path}: {mean} {tuple(arrays[mean].shape)} and {covariance} "
                f"{tuple(arrays[covariance].shape)} do not fit each other"
            )
        if not bool(torch.isfinite(arrays[covariance]).all() & torch.isfinite(arrays[mean]).all()):
            raise UserError(f"{path}: {mean} or {covariance} holds NaN or infinity")
    return (
        GaussianStatistics(arrays["mu"], arrays["sigma"]),
        GaussianStatistics(arrays["mu_s"], arrays["sigma_s"]),
    )


def score(
    generated: FeatureStore,
    reference: Reference,
    *,
    neighbours: int = 3,
    bootstrap: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """All metrics of a set: columns metric, value, low, high, images, reference_images, note.

    low and high are 95 % intervals (see `intervals` for what each one holds); `bootstrap` is the number of
    resamples for FID, sFID and the Inception score. Rows: fid, fid_infinity, fid_floor, sfid, inception_score,
    precision, recall. What cannot be had is absent. `note` repeats any warning.
    """
    if generated.extractor != reference.extractor:
        raise UserError(
            f"features of the images are by {generated.extractor[:24]}, of the reference by "
            f"{reference.extractor[:24]}; extract both with the same weights"
        )
    images, references = len(generated), len(reference.features)
    rows: list[dict] = []

    def add(metric: str, value: float, interval: tuple[float, float] | None, note: str = "") -> None:
        low, high = interval if interval is not None else (np.nan, np.nan)
        rows.append(
            dict(metric=metric, value=value, low=low, high=high, images=images, reference_images=references, note=note)
        )

    for metric, column, target in (("fid", "pool", reference.pool), ("sfid", "spatial", reference.spatial)):
        table = generated.column(column)
        value, note = _noted_distance(table, target)
        add(metric, value, intervals.bootstrap_frechet(table, target, replicates=bootstrap, seed=seed), note)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = intervals.extrapolated_frechet(generated.column("pool"), reference.pool, seed=seed)
    _repeat(caught)
    if line is not None:
        add("fid_infinity", line.value, None, f"intercept of FID against 1/N, slope {line.slope:.4g}")
    if reference.floor is not None:
        floor = reference.floor
        add("fid_floor", floor.mean, (floor.low, floor.high), f"real halves of {floor.images} images; range of splits")
    logits = generated.column("logits")
    score_ = inception_score(logits)
    interval = intervals.bootstrap_inception_score(logits, replicates=bootstrap, seed=seed)
    add("inception_score", score_.mean, interval, f"10 splits in file order, deviation {score_.deviation:.4g}")
    coverage = precision_recall(generated.column("pool").tensor(), reference.features, neighbours=neighbours)
    for metric, value, inside in (
        ("precision", coverage.precision, coverage.generated_inside),
        ("recall", coverage.recall, coverage.reference_inside),
    ):
        add(metric, value, intervals.bootstrap_share(inside, seed=seed), f"k = {neighbours}")
    return pd.DataFrame(rows)


def _noted_distance(table: Table, reference: GaussianStatistics) -> tuple[float, str]:
    """FID, and the warnings that came with it; they are given on as well."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        statistics = gaussian_statistics(table)
    _repeat(caught)
    return frechet_distance(statistics, reference), "; ".join(str(warning.message) for warning in caught)


def _repeat(caught: list[warnings.WarningMessage]) -> None:
    for warning in caught:
        warnings.warn(str(warning.message), stacklevel=3)
