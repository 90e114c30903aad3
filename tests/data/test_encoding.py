"""A shard encoded while it is read and written is the shard encoded at once; what fails leaves no file."""

import logging

import numpy as np
import pytest

from stablevelocity.data.encoding import SLICE, encode_shard
from stablevelocity.data.shards import new_shard, read_shard, write_shard
from stablevelocity.errors import UserError


def test_a_new_shard_is_the_file_that_write_shard_writes(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "labels": np.arange(7),
        "mean": rng.normal(size=(7, 4, 3)).astype(np.float16),
        "images": rng.integers(0, 255, (7, 5, 5, 3), np.uint8),
        "also half": rng.normal(size=(7,)).astype(np.float16),
    }
    write_shard(tmp_path / "whole.safetensors", arrays)
    layout = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    with new_shard(tmp_path / "filled.safetensors", layout) as target:
        for name, array in arrays.items():
            target[name][:] = array
    assert (tmp_path / "filled.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.parametrize("count", [1, SLICE, 2 * SLICE + 1])
def test_slices_are_encoded_in_their_places(tmp_path, caplog, count):
    images = np.random.default_rng(0).integers(0, 255, (count, 2, 2, 3), np.uint8)
    write_shard(tmp_path / "images.safetensors", {"images": images})
    sizes = []

    def encode(pixels: np.ndarray) -> dict[str, np.ndarray]:
        sizes.append(len(pixels))
        return {"sum": pixels.sum((1, 2, 3), dtype=np.float32), "corner": pixels[:, 0, 0] / 255}

    with caplog.at_level(logging.INFO):
        encode_shard(
            "latents",
            read_shard(tmp_path / "images.safetensors")["images"],
            encode,
            {"sum": (), "corner": (3,)},
            tmp_path / "out.safetensors",
            labels=np.arange(count) % 10,
        )
    found = read_shard(tmp_path / "out.safetensors")
    np.testing.assert_array_equal(found["sum"], images.sum((1, 2, 3)).astype(np.float16))
    np.testing.assert_array_equal(found["corner"], (images[:, 0, 0] / 255).astype(np.float16))
    np.testing.assert_array_equal(found["labels"], np.arange(count) % 10)
    assert max(sizes) <= SLICE
    assert "images/s" in caplog.text
    assert "bound by" in caplog.text


@pytest.mark.parametrize("fails_at", ["the first slice", "the second slice"])
def test_a_failure_leaves_no_shard(tmp_path, fails_at):
    images = np.zeros((2 * SLICE, 1), np.uint8)
    seen = []

    def encode(pixels: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(1)
        if fails_at == "the first slice" or len(seen) == 2:
            raise RuntimeError("out of memory")
        return {"x": pixels[:, 0]}

    with pytest.raises(RuntimeError, match="out of memory"):
        encode_shard("latents", images, encode, {"x": ()}, tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_cannot_be_written_fails_the_shard(tmp_path):
    """The writer's thread hands its error to the caller."""
    images = np.zeros((SLICE + 1, 1), np.uint8)
    with pytest.raises(ValueError, match="broadcast"):
        encode_shard("latents", images, lambda pixels: {"x": np.zeros(3)}, {"x": ()}, tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value, said", [(np.nan, "largest value is nan"), (-np.inf, "is inf"), (70_000.0, "is 70000")])
def test_what_is_not_finite_in_half_precision_is_refused_and_nothing_is_written(tmp_path, value, said):
    """Of 3 slices the second has one such number; the other arrays of the shard are not written either."""
    images = np.zeros((2 * SLICE + 5, 2, 2, 3), np.uint8)
    images[SLICE + 7] = 1

    def encode(pixels: np.ndarray) -> dict[str, np.ndarray]:
        mean = pixels.mean((1, 2, 3)).astype(np.float32)[:, None] * np.ones((1, 4), np.float32)
        mean[mean > 0] = value
        return {"mean": mean}

    with pytest.raises(UserError, match=f"latents x: mean of 1 images of {SLICE} .* image {SLICE + 7} first.*{said}"):
        encode_shard(
            "latents x", images, encode, {"mean": (4,)}, tmp_path / "x.safetensors", labels=np.arange(len(images))
        )
    assert list(tmp_path.iterdir()) == []


def test_the_largest_half_is_kept(tmp_path):
    images = np.zeros((1, 2, 2, 3), np.uint8)
    encode_shard("x", images, lambda _: {"mean": np.full((1, 1), 65_504.0)}, {"mean": (1,)}, tmp_path / "x.safetensors")
    assert read_shard(tmp_path / "x.safetensors")["mean"].item() == 65_504
