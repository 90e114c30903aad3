"""A set of generated images against a reference: one table with every metric, its interval and its counts."""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from torch import Tensor

from stablevelocity.data.shards import write_arrays
from stablevelocity.errors import UserError
from stablevelocity.evaluation import intervals
from stablevelocity.evaluation.extractors import Extractor, FeatureStore, extract_features
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
    """Identity of the extractor."""
    name: str
    """In words, for tables."""

    @property
    def identity(self) -> str:
        """Hash of all numbers in it and of its extractor: two references of one name may hold other images."""
        digest = hashlib.sha256(f"{self.extractor} {self.pool.count}".encode())
        for name, tensor in self._tensors().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path | str) -> None:
        """Write it as one safetensors file."""
        info = {"extractor": self.extractor, "name": self.name, "count": str(self.pool.count or "")}
        write_arrays(path, {name: tensor.cpu().numpy() for name, tensor in self._tensors().items()}, info)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {
            "mu": self.pool.mean,
            "sigma": self.pool.covariance,
            "mu_s": self.spatial.mean,
            "sigma_s": self.spatial.covariance,
            "features": self.features,
        }
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    @staticmethod
    def load(path: Path | str) -> "Reference":
        """Read a file of `save`."""
        with safe_open(path, "pt") as file:
            info = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        count = int(info["count"]) if info["count"] else None
        return Reference(
            GaussianStatistics(tensors["mu"], tensors["sigma"], count),
            GaussianStatistics(tensors["mu_s"], tensors["sigma_s"], count),
            tensors["features"],
            info["extractor"],
            info["name"],
        )


def reference_from_features(store: FeatureStore, name: str) -> Reference:
    """The features of a set of real images as the reference."""
    return Reference(
        gaussian_statistics(store.column("pool")),
        gaussian_statistics(store.column("spatial")),
        store.column("pool").tensor(),
        store.extractor,
        name,
    )


def adm_reference(path: Path | str, extractor: Extractor, folder: Path | str) -> Reference:
    """An official ADM reference batch: its stored statistics, and features of its images for precision and recall.

    Without stored statistics (a sample batch used as reference) they are computed from `arr_0`, as ADM does.
    The features are kept in `folder`.
    """
    store = extract_features(open_images(path), extractor, Path(folder) / "features.json")
    stored = read_adm_statistics(path)
    if stored is None:
        return reference_from_features(store, f"{len(store):,} images of {Path(path).name}")
    pool, spatial = stored
    features = store.column("pool").tensor()
    if len(pool.mean) != features.shape[1]:
        raise UserError(
            f"{path}: statistics of {len(pool.mean)} features, but extractor {extractor.name!r} gives "
            f"{features.shape[1]}"
        )
    name = f"statistics of {Path(path).name}, its {len(features):,} images for precision and recall"
    return Reference(pool, spatial, features, store.extractor, name)


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
    labels: Int[Tensor, " n"] | None = None,
    neighbours: int = 3,
    bootstrap: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """All metrics of a set: columns metric, value, low, high, images, reference, note.

    low and high are 95 % intervals (see `intervals` for what each one holds); `bootstrap` is the number of
    resamples for FID, sFID and the Inception score. Rows: fid, sfid, is, precision, recall, fid_infinity, and with
    `labels` (the classes that were asked for, in the extractor's own numbering) accuracy, the share of images
    that its classifier takes for their class. What cannot be had is absent. `note` repeats any warning.
    """
    if generated.extractor != reference.extractor:
        raise UserError(
            f"features of the images are by {generated.extractor[:24]}, of the reference by "
            f"{reference.extractor[:24]}; extract both with the same weights"
        )
    rows: list[dict] = []

    def add(metric: str, value: float, interval: tuple[float, float] | None, note: str = "") -> None:
        low, high = interval if interval is not None else (np.nan, np.nan)
        rows.append(
            {
                "metric": metric,
                "value": value,
                "low": low,
                "high": high,
                "images": len(generated),
                "reference": reference.name,
                "note": note,
            }
        )

    for metric, column, target in (("fid", "pool", reference.pool), ("sfid", "spatial", reference.spatial)):
        table = generated.column(column)
        value, note = _noted_distance(table, target)
        add(metric, value, intervals.bootstrap_frechet(table, target, replicates=bootstrap, seed=seed), note)
    logits = generated.column("logits")
    found = inception_score(logits)
    interval = intervals.bootstrap_inception_score(logits, replicates=bootstrap, seed=seed)
    add("is", found.mean, interval, f"10 splits in file order, deviation {found.deviation:.4g}")
    coverage = precision_recall(generated.column("pool").tensor(), reference.features, neighbours=neighbours)
    for metric, value, inside in (
        ("precision", coverage.precision, coverage.generated_inside),
        ("recall", coverage.recall, coverage.reference_inside),
    ):
        add(metric, value, intervals.bootstrap_share(inside, seed=seed), f"k = {neighbours}")
    if labels is not None:
        right = torch.cat([chunk.argmax(dim=1) for chunk in logits]) == labels
        add("accuracy", float(right.double().mean()), intervals.bootstrap_share(right, seed=seed))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = intervals.extrapolated_frechet(generated.column("pool"), reference.pool, seed=seed)
    _repeat(caught)
    if line is not None:
        add("fid_infinity", line.value, None, f"intercept of FID against 1/N, slope {line.slope:.4g}")
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
