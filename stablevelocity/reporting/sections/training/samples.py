"""Grids of generated images: one per arm, the same labels and noise in all of them."""

import numpy as np
from matplotlib.figure import Figure

from stablevelocity.data.shards import read_shard
from stablevelocity.reporting.figures import WIDTH
from stablevelocity.reporting.sections.training import sample_files
from stablevelocity.reporting.source import Source

CLASSES = 10
COLUMNS, LARGE_COLUMNS = 20, 8
"""Images per row of a grid; `LARGE_COLUMNS` for images of 64 pixels and more."""


def samples(source: Source) -> Figure:
    """For each arm (first seed, last step, main sampler) images of the first classes, sorted by class.

    The main sampler's noise and labels depend on the sampling seed only, so position by position the arms started from
    the same noise.
    """
    study = source.study
    files = sample_files(study)
    shards = {arm: read_shard(source.results / file) for arm, file in files.items()}
    first = next(iter(shards.values()))
    side = first["images"].shape[1]
    columns = COLUMNS if side < 64 else LARGE_COLUMNS
    rows = 2 if side < 64 else 1
    chosen = _chosen(np.asarray(first["labels"]), rows * columns, rows)
    height = WIDTH * rows / columns + 0.32
    figure = Figure(figsize=(WIDTH, height * len(files)), layout="constrained")
    for place, (arm, arrays) in enumerate(shards.items()):
        axis = figure.add_subplot(len(files), 1, place + 1)
        images = np.asarray(arrays["images"])[chosen[chosen < len(arrays["images"])]]
        axis.imshow(_grid(images, columns), interpolation="nearest", aspect="equal")
        axis.set_title(study.arms[arm].label)
        axis.axis("off")
    return figure


def _chosen(labels: np.ndarray, count: int, rows: int) -> np.ndarray:
    """Indices of `count` images spread over the first classes present: each class a block of neighbours in a row."""
    classes = np.unique(labels)[:CLASSES]
    each = max(1, count // len(classes))
    found = [np.flatnonzero(labels == one)[:each] for one in classes]
    across = max(1, each // rows)
    # Row r of the grid shows images r*across.. of every class, so that a class is a column block.
    order = [block[row * across : (row + 1) * across] for row in range(rows) for block in found]
    return np.concatenate(order)[:count]


def _grid(images: np.ndarray, columns: int) -> np.ndarray:
    """(n, h, w, 3) uint8 laid out in rows, white where images run out."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    canvas = np.full((rows, columns, height + 1, width + 1, channels), 255, np.uint8)
    for index, image in enumerate(images):
        canvas[index // columns, index % columns, :height, :width] = image
    return canvas.transpose(0, 2, 1, 3, 4).reshape(rows * (height + 1), columns * (width + 1), channels)
