"""A set of generated images against a reference set: one table with every metric, its interval and its counts."""

import hashlib
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
    SPLITS,
    GaussianStatistics,
    frechet_distance,
    gaussian_statistics,
    inception_score,
    precision_recall,
)
from stablevelocity.evaluation.image_sets import open_images
from stablevelocity.models.weight_files import reading_weights
from stablevelocity.progress import log

ADM_NAMES = ("mu", "sigma", "mu_s", "sigma_s")
"""Mean and covariance for FID, then for sFID, in ADM's archives and in the files written here."""


@dataclass
class ReferenceStatistics:
    """Statistics of the reference images for FID and sFID, and their features for precision and recall.

    In a published batch the images behind `features` (pool features) are fewer (10,000) than those behind `pool` and
    `spatial`.
    """

    pool: GaussianStatistics
    spatial: GaussianStatistics
    features: Float[Tensor, "n d"]
    extractor: str
    """Identity of the extractor."""
    name: str
    """In words, for tables."""
    held_out: Float[Tensor, "m d"] | None = None
    """Pool features of real images that nothing was trained on: what shows memorisation."""

    @property
    def identity(self) -> str:
        """Hash of all numbers in it and of its extractor: two references of one name may hold other images."""
        digest = hashlib.sha256(f"{self.extractor} {self.pool.count}".encode())
        for tensor in self._tensors().values():
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path | str) -> None:
        """Write it as one safetensors file."""
        info = {"extractor": self.extractor, "name": self.name, "count": str(self.pool.count or "")}
        write_arrays(path, {name: tensor.numpy() for name, tensor in self._tensors().items()}, info)

    def _tensors(self) -> dict[str, Tensor]:
        sides = self.pool.mean, self.pool.covariance, self.spatial.mean, self.spatial.covariance
        tensors: dict[str, Tensor] = dict(zip((*ADM_NAMES, "features"), (*sides, self.features), strict=True))
        return tensors if self.held_out is None else tensors | {"held_out": self.held_out}

    @staticmethod
    def load(path: Path | str) -> "ReferenceStatistics":
        """Read a file of `save`."""
        with reading_weights(path, "reference statistics"), safe_open(path, "pt") as file:
            info = file.metadata()
            mu, sigma, mu_s, sigma_s, features = (file.get_tensor(name) for name in (*ADM_NAMES, "features"))
            held_out = file.get_tensor("held_out") if "held_out" in set(file.keys()) else None
            count = int(info["count"]) if info["count"] else None
        pool, spatial = GaussianStatistics(mu, sigma, count), GaussianStatistics(mu_s, sigma_s, count)
        return ReferenceStatistics(pool, spatial, features, info["extractor"], info["name"], held_out)


def reference_statistics(
    path: Path, extractor: Extractor, folder: Path, images: str | None = None
) -> ReferenceStatistics:
    """Statistics of reference images from anywhere; their features are kept in `folder`.

    Of an ADM reference batch (`.npz`) the stored statistics are taken, and its images only for precision and recall;
    without stored ones (a sample batch) they are computed from `arr_0`, as ADM does. `images` names them in tables.
    """
    store = extract_features(open_images(path), extractor, folder / "features.json")
    features, count = store.column("pool").tensor(), f"{len(store):,}"
    stored = read_adm_statistics(path) if path.suffix == ".npz" else None
    if stored is None:
        pool, spatial = (gaussian_statistics(store.column(name)) for name in ("pool", "spatial"))
        name = f"{count} {images or f'images of {path.name}'}"
        return ReferenceStatistics(pool, spatial, features, store.extractor, name)
    given, expected = len(stored[0].mean), features.shape[1]
    if given != expected:
        raise UserError(f"{path}: statistics of {given} features, but extractor {extractor.name!r} gives {expected}")
    name = f"statistics of {path.name}, its {count} images for precision and recall"
    return ReferenceStatistics(*stored, features, store.extractor, name)


def read_adm_statistics(path: Path | str) -> tuple[GaussianStatistics, GaussianStatistics] | None:
    """`mu`, `sigma`, `mu_s`, `sigma_s` of an ADM `.npz` in float64, or None when it holds no `mu`.

    Raises UserError when some are missing, or their shapes do not fit each other, or they are not finite.
    """
    with reading_weights(path, "statistics in ADM's layout"), np.load(path, allow_pickle=False) as archive:
        if "mu" not in archive:
            return None
        missing = [name for name in ADM_NAMES if name not in archive]
        if missing:
            raise UserError(f"{path}: holds mu but not {', '.join(missing)}")
        arrays = {name: torch.from_numpy(archive[name]).double() for name in ADM_NAMES}
    for mean, covariance in (ADM_NAMES[:2], ADM_NAMES[2:]):
        shapes = tuple(arrays[mean].shape), tuple(arrays[covariance].shape)
        if len(shapes[0]) != 1 or shapes[1] != shapes[0] * 2:
            raise UserError(f"{path}: {mean} {shapes[0]} and {covariance} {shapes[1]} do not fit each other")
        if not bool(torch.isfinite(arrays[covariance]).all() & torch.isfinite(arrays[mean]).all()):
            raise UserError(f"{path}: {mean} or {covariance} holds NaN or infinity")
    return GaussianStatistics(arrays["mu"], arrays["sigma"]), GaussianStatistics(arrays["mu_s"], arrays["sigma_s"])


def metrics_table(
    generated: FeatureStore,
    reference: ReferenceStatistics,
    *,
    labels: Int[Tensor, " n"] | None = None,
    neighbours: int = 3,
    bootstrap: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """All metrics of a set: columns metric, value, low, high, images, reference, note.

    low and high are 95 % intervals (see `intervals` for what each one holds); `bootstrap` is the number of resamples
    for FID, sFID and the Inception score. Rows: fid, sfid, is, precision, recall, fid_infinity; with held-out images in
    the reference fid_heldout, against those, and nearest_ratio (see `nearest_ratio`); with `labels` (the classes that
    were asked for, in the extractor's own numbering) accuracy, the share of images that its classifier takes for their
    class. A row that needs more images is absent, and the log says so. `note` and the log say when
    images are too few for FID.
    """
    if generated.extractor != reference.extractor:
        raise UserError(
            f"features of the images are by {generated.extractor[:24]}, of the reference by "
            f"{reference.extractor[:24]}; extract both with the same weights"
        )
    rows = []

    def left_out(metrics: str, need: str) -> None:
        log.warning(f"{metrics}: left out; needs {need}, given {len(generated)}")

    def add(metric: str, value: float, interval: tuple[float, float] = (np.nan, np.nan), note: str = "") -> None:
        rows.append((metric, value, *interval, len(generated), reference.name, note))

    pool, logits = generated.column("pool"), generated.column("logits").tensor()
    for metric, table, target in (
        ("fid", pool, reference.pool),
        ("sfid", generated.column("spatial"), reference.spatial),
    ):
        statistics = gaussian_statistics(table)
        if statistics.caution:
            log.warning(f"{metric}: {statistics.caution}")
        interval = intervals.bootstrap_frechet(table, target, replicates=bootstrap, seed=seed)
        add(metric, frechet_distance(statistics, target), interval, statistics.caution)
    if len(generated) < SPLITS:
        left_out("is", f"at least {SPLITS} images, one per split")
    else:
        mean, deviation = inception_score(logits)
        interval = intervals.bootstrap_inception_score(logits, replicates=bootstrap, seed=seed)
        add("is", mean, interval, f"{SPLITS} splits in file order, deviation {deviation:.4g}")
    if min(len(generated), len(reference.features)) <= neighbours:
        references = f"{len(reference.features):,} reference images"
        left_out("precision, recall", f"more than k = {neighbours} images on both sides ({references})")
    else:
        coverage = precision_recall(pool.tensor(), reference.features, neighbours=neighbours)
        for metric, value, inside in (
            ("precision", coverage.precision, coverage.generated_inside),
            ("recall", coverage.recall, coverage.reference_inside),
        ):
            add(metric, value, intervals.bootstrap_share(inside, seed=seed), f"k = {neighbours}")
    if labels is not None and not bool((labels == logits.shape[1]).all()):  # the null class: no class was asked for
        right = logits.argmax(dim=1) == labels
        add("accuracy", float(right.double().mean()), intervals.bootstrap_share(right, seed=seed))
    if reference.held_out is not None:
        held_out = gaussian_statistics([reference.held_out])
        interval = intervals.bootstrap_frechet(pool, held_out, replicates=bootstrap, seed=seed)
        note = f"against {len(reference.held_out):,} held-out images"
        add("fid_heldout", frechet_distance(gaussian_statistics(pool), held_out), interval, note)
        ratio, interval = nearest_ratio(pool.tensor(), reference.features, reference.held_out, seed=seed)
        add("nearest_ratio", ratio, interval, note)
    line = intervals.extrapolated_frechet(pool, reference.pool, seed=seed)
    if line is None:
        features = len(reference.pool.mean)
        left_out("fid_infinity", f"at least {4 * features} images, four times the {features} features")
    else:
        add("fid_infinity", line[0], note=f"intercept of FID against 1/N, slope {line[1]:.4g}")
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "images", "reference", "note"])


def nearest_ratio(
    generated: Float[Tensor, "n d"], train: Float[Tensor, "k d"], held_out: Float[Tensor, "m d"], *, seed: int = 0
) -> tuple[float, intervals.Interval]:
    """Mean distance to the nearest train image over that to the nearest held-out one, with its bootstrap interval.

    1 where the generator knows the distribution and not its images, below 1 where it repeats them. A larger set is
    nearer, so the train images are cut at random into k sets of as many as are held out, and their distances
    averaged: of copies alone it is 1 - 1/k.
    """
    m = min(len(held_out), len(train))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(train)))

    def distances(others: Tensor) -> Tensor:
        rows = generated.double().split(max(1, 2**24 // m))
        return torch.cat([torch.cdist(points, others.double()).amin(dim=1) for points in rows])

    parts = order[: len(train) // m * m].split(m)
    near = torch.stack([distances(train[rows]) for rows in parts]).mean(dim=0).numpy()
    far = distances(held_out[:m]).numpy()
    times = np.random.default_rng(seed).multinomial(len(near), np.full(len(near), 1 / len(near)), size=1000)
    low, high = np.percentile((times @ near) / (times @ far), [2.5, 97.5])
    return float(near.mean() / far.mean()), intervals.Interval(float(low), float(high))
