"""Grids of images: real ones, and those of each arm, the same labels and noise in all of them."""

import numpy as np
from matplotlib.figure import Figure

from stablevelocity.data.shards import ShardSet, read_shard
from stablevelocity.reporting.figures import INCHES, is_wide, label_of, mosaic, panels
from stablevelocity.reporting.results import Results
from stablevelocity.reporting.sections.training import sample_files
from stablevelocity.reporting.spec import LAYOUT

CLASSES = 10
MANY_ARMS = 5  # of more, half as many images each


def samples(results: Results) -> Figure:
    """Real images, and for each arm (first seed, last step, main sampler) images of the same classes in the same order.

    The main sampler's noise and labels depend on the sampling seed only, so position by position the arms started from
    the same noise.
    """
    shards = {arm: read_shard(results.folder / file) for arm, file in sample_files(results.study).items()}
    first = next(iter(shards.values()))
    rows, columns = (2, 20) if first["images"].shape[1] < 64 else (1, 8)
    rows = 1 if len(shards) > MANY_ARMS else rows
    rows, columns = (rows, columns) if is_wide() else (2 * rows, columns // 2)
    chosen = _chosen(np.asarray(first["labels"]), rows, columns)
    grids = {"Real images": _real(results, np.asarray(first["labels"])[chosen])}
    for arm, arrays in shards.items():
        grids[label_of(results.study, arm)] = np.asarray(arrays["images"])[chosen[chosen < len(arrays["images"])]]
    figure, axes = panels(
        len(grids), columns=1, height=INCHES["page" if is_wide() else "column"] * rows / columns + 0.22
    )
    for axis, (title, images) in zip(axes, grids.items(), strict=True):
        full = np.full((rows * columns, *images.shape[1:]), 255, np.uint8)
        full[: len(images)] = images
        mosaic(axis, full.reshape(rows, columns, *images.shape[1:]))
        axis.set_title(title)
    return figure


def _real(results: Results, labels: np.ndarray) -> np.ndarray:
    """Training images of these classes, as many of each as asked for and each once; white where there are too few."""
    data = ShardSet(results.folder / LAYOUT.image_manifest("train"), checksums=False)
    of_class = {label: iter(np.flatnonzero(data.all("labels") == label)) for label in np.unique(labels)}
    rows = np.array([next(of_class[label], -1) for label in labels])
    images = data.rows("images", rows.clip(0))
    images[rows < 0] = 255
    return images


def _chosen(labels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Indices of images of the first classes present, row by row of the grid; each class is a block of columns."""
    classes = np.unique(labels)[:CLASSES]
    across = max(1, max(1, rows * columns // len(classes)) // rows)
    found = [np.flatnonzero(labels == one) for one in classes]
    order = [block[row * across : (row + 1) * across] for row in range(rows) for block in found]
    return np.concatenate(order)[: rows * columns]
