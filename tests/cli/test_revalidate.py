"""How results made again are compared; that whole studies are: tests/workflow/test_upgrade.py."""

import numpy as np
import pytest

from stablevelocity.cli.revalidate import spread

KEPT = np.array([[0.5, -4.0], [np.nan, 2.0]], np.float32)


def test_equal_arrays_do_not_differ_and_a_nan_is_equal_to_a_nan_only():
    assert spread(KEPT.copy(), KEPT) == 0
    assert spread(np.nan_to_num(KEPT), KEPT) == np.inf
    assert spread(np.where(KEPT == 2, np.nan, KEPT), KEPT) == np.inf


def test_the_largest_difference_counts_as_a_share_of_the_largest_number():
    assert spread(KEPT + np.array([[0.125, 0], [0, -0.25]], np.float32), KEPT) == 0.25 / 4


def test_of_pixels_the_mean_difference_counts():
    kept = np.array([[200, 100], [0, 0]], np.uint8)
    assert spread(kept + np.array([[4, 0], [0, 0]], np.uint8), kept) == 1 / 200


@pytest.mark.parametrize(
    "other", [np.arange(4) * 1000 + 1, np.arange(3) * 1000, np.arange(4.0) * 1000], ids=["one off", "shape", "type"]
)
def test_labels_other_shapes_and_other_types_are_never_close(other):
    assert spread(other, np.arange(4) * 1000) == np.inf
