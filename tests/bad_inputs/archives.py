"""`.npz` batches that are to be scored."""

from pathlib import Path

import numpy as np

from bad_inputs.case import Case
from stablevelocity.evaluation.image_sets import open_images

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)


def score(path: Path) -> None:
    """As `score` reads them."""
    list(open_images(path).batches(2))


def floats(folder: Path) -> None:
    np.savez(folder / "x.npz", arr_0=IMAGES / 255)
    score(folder / "x.npz")


CASES = [
    Case("floats in 0..1", floats, "holds float64, expected uint8"),
]
