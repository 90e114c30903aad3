"""Shards: what was written is read; what is damaged is refused and made again."""

import numpy as np
import pytest

from stablevelocity.data.shards import ShardSet, read_shard, shard_info, write_manifest, write_shard
from stablevelocity.errors import UserError
from stablevelocity.files import read_json


@pytest.fixture
def shards(tmp_path):
    """Three shards of 4, 1 and 5 rows with a manifest, and the rows."""
    rng = np.random.default_rng(0)
    rows = {
        "images": rng.integers(0, 256, (10, 3, 3, 3), dtype=np.uint8),
        "mean": rng.normal(size=(10, 4, 2, 2)).astype(np.float16),
        "labels": rng.integers(0, 10, 10),
    }
    files = []
    for number, (first, last) in enumerate([(0, 4), (4, 5), (5, 10)]):
        files.append(tmp_path / f"part-{number}.safetensors")
        write_shard(files[-1], {name: array[first:last] for name, array in rows.items()}, {"part": str(number)})
    write_manifest(tmp_path / "set.json", files, scale=0.5)
    return tmp_path / "set.json", files, rows


def test_rows_come_back_in_any_order_and_with_repeats(shards):
    manifest, _, rows = shards
    opened = ShardSet(manifest)
    indices = np.array([9, 0, 4, 4, 3, 5])
    assert len(opened) == 10
    for name, array in rows.items():
        np.testing.assert_array_equal(opened.rows(name, indices), array[indices])
        np.testing.assert_array_equal(opened.all(name), array)
        assert opened.all(name).dtype == array.dtype


def test_the_manifest_describes_the_set(shards):
    manifest, files, _ = shards
    content = read_json(manifest)
    assert content["count"] == 10
    assert content["scale"] == 0.5
    assert content["arrays"]["mean"] == {"dtype": "float16", "shape": [4, 2, 2]}
    assert [entry["count"] for entry in content["shards"]] == [4, 1, 5]
    assert shard_info(files[2]) == {"part": "2"}
    assert read_shard(files[0])["images"].shape == (4, 3, 3, 3)


@pytest.mark.parametrize("damage", ["one byte", "cut short"])
def test_a_damaged_shard_is_refused_and_put_aside(shards, damage):
    manifest, files, _ = shards
    content = bytearray(files[1].read_bytes())
    if damage == "one byte":
        content[-1] ^= 1
    else:
        del content[-1]
    files[1].write_bytes(content)
    with pytest.raises(UserError, match=r"part-1\.safetensors: differs from its checksum"):
        ShardSet(manifest)
    assert not files[1].exists()  # so the workflow makes it again
    assert files[1].with_name("part-1.safetensors.damaged").exists()


def test_a_missing_shard_is_named(shards):
    manifest, files, _ = shards
    files[0].unlink()
    with pytest.raises(UserError, match=r"part-0\.safetensors: shard is missing"):
        ShardSet(manifest)


def test_arrays_of_one_shard_have_one_length(tmp_path):
    with pytest.raises(ValueError, match="differ in length"):
        write_shard(tmp_path / "x.safetensors", {"a": np.zeros(3), "b": np.zeros(2)})
