"""Grids of generated images: one per arm, the same labels and noise in all of them."""

import numpy as np
from matplotlib.figure import Figure

from stablevelocity.data.shards import read_shard
from stablevelocity.reporting.figures import WIDTH, new_figure
from stablevelocity.reporting.results import Results
from stablevelocity.reporting.sections.training import sample_files

CLASSES = 10


def samples(results: Results) -> Figure:
    """For each arm (first seed, last step, main sampler) images of the first classes, sorted by class.

    The main sampler's noise and labels depend on the sampling seed only, so position by position the arms started from
    the same noise.
    """
    shards = {arm: read_shard(results.folder / file) for arm, file in sample_files(results.study).items()}
    first = next(iter(shards.values()))
    rows, columns = (2, 20) if first["images"].shape[1] < 64 else (1, 8)
    chosen = _chosen(np.asarray(first["labels"]), rows, columns)
    figure, axes = new_figure(len(shards), 1, (WIDTH * rows / columns + 0.32) * len(shards))
    for axis, (arm, arrays) in zip(axes[:, 0], shards.items(), strict=True):
        images = np.asarray(arrays["images"])
        axis.imshow(_grid(images[chosen[chosen < len(images)]], columns), interpolation="nearest", aspect="equal")
        axis.set_title(results.study.arms[arm].label)
        axis.axis("off")
    return figure


def _chosen(labels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Indices of images of the first classes present, row by row of the grid; each class is a block of columns."""
    classes = np.unique(labels)[:CLASSES]
    across = max(1, max(1, rows * columns // len(classes)) // rows)
    found = [np.flatnonzero(labels == one) for one in classes]
    order = [block[row * across : (row + 1) * across] for row in range(rows) for block in found]
    return np.concatenate(order)[: rows * columns]


def _grid(images: np.ndarray, columns: int) -> np.ndarray:
    """(n, h, w, 3) uint8 laid out in rows, white where images run out."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    canvas = np.full((rows * columns, height + 1, width + 1, channels), 255, np.uint8)
    canvas[:n, :height, :width] = images
    canvas = canvas.reshape(rows, columns, height + 1, width + 1, channels).transpose(0, 2, 1, 3, 4)
    return canvas.reshape(rows * (height + 1), columns * (width + 1), channels)
