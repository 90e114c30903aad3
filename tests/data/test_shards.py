"""Shards: what was written is read; what is damaged is refused and made again."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from stablevelocity.data.shards import (
    ShardSet,
    read_shard,
    shard_info,
    write_manifest,
    write_shard,
)
from stablevelocity.errors import UserError
from stablevelocity.files import DamagedShard, damaged_put_aside, read_json, write_json


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


def damage(file, kind="cut short"):
    content = bytearray(file.read_bytes())
    if kind == "one byte":
        content[-1] ^= 1
    else:
        del content[-1]
    file.write_bytes(content)


def tree(folder):
    """Every path below a folder with its bytes."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", ["one byte", "cut short"])
def test_reading_a_damaged_shard_names_it_and_changes_nothing(shards, kind):
    manifest, files, _ = shards
    damage(files[1], kind)
    before = tree(manifest.parent)
    with pytest.raises(DamagedShard, match=r"part-1\.safetensors: differs from its checksum") as error:
        ShardSet(manifest)
    assert error.value.file == files[1]
    assert tree(manifest.parent) == before


def test_a_job_of_the_study_puts_a_damaged_shard_aside_so_that_it_is_made_again(shards):
    manifest, files, _ = shards
    damage(files[1])
    content = files[1].read_bytes()
    with (
        pytest.raises(UserError, match=r"put aside as part-1\.safetensors\.damaged"),
        damaged_put_aside(manifest.parent),
    ):
        ShardSet(manifest)
    assert not files[1].exists()
    assert files[1].with_name("part-1.safetensors.damaged").read_bytes() == content


def test_a_job_puts_aside_no_file_of_another_folder_and_none_that_is_a_link_or_no_shard(shards, tmp_path_factory):
    manifest, files, _ = shards
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "treasure.safetensors").write_bytes(b"mine")
    (elsewhere / "thesis.pdf").write_bytes(b"mine")
    study = elsewhere / "study"
    study.mkdir()
    (study / "link.safetensors").symlink_to(elsewhere / "treasure.safetensors")
    (study / "out").symlink_to(elsewhere)
    damage(files[1])
    entry = {"count": 1, "bytes": 1, "sha256": "0"}

    def opened(folder, name):
        write_json(folder / "set.json", {"arrays": {}, "shards": [{"file": name, **entry}]})
        before = tree(elsewhere)
        with pytest.raises(DamagedShard, match="differs from its checksum"), damaged_put_aside(study):
            ShardSet(folder / "set.json")
        assert tree(elsewhere) == before

    opened(elsewhere, "treasure.safetensors")
    opened(elsewhere / "study" / "out", "treasure.safetensors")
    opened(study, "link.safetensors")
    (study / "thesis.pdf").write_bytes(b"mine")
    opened(study, "thesis.pdf")
    (study / "folder.safetensors").mkdir()
    opened(study, "folder.safetensors")
    os.mkfifo(study / "pipe.safetensors")
    opened(study, "pipe.safetensors")
    before = tree(manifest.parent)
    with pytest.raises(DamagedShard), damaged_put_aside(study):
        ShardSet(manifest)
    assert tree(manifest.parent) == before


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x.safetensors", "a/x.safetensors", "./x", "..", ".", "", "a\0", 3, None]
)
def test_a_manifest_names_bare_files_only(tmp_path, name):
    (tmp_path / "x.safetensors").write_bytes(b"mine")
    (tmp_path / "set").mkdir()
    entry = {"file": name, "count": 1, "bytes": 1, "sha256": "0"}
    write_json(tmp_path / "set" / "set.json", {"arrays": {}, "shards": [entry]})
    before = tree(tmp_path)
    with pytest.raises(UserError, match="is no bare file name") as error, damaged_put_aside(tmp_path):
        ShardSet(tmp_path / "set" / "set.json")
    assert str(error.value).isprintable()
    assert tree(tmp_path) == before


def test_a_missing_shard_is_named(shards):
    manifest, files, _ = shards
    files[0].unlink()
    with pytest.raises(UserError, match=r"part-0\.safetensors: shard is missing"):
        ShardSet(manifest)


def test_arrays_of_one_shard_have_one_length(tmp_path):
    with pytest.raises(ValueError, match="differ in length"):
        write_shard(tmp_path / "x.safetensors", {"a": np.zeros(3), "b": np.zeros(2)})


SOME = {
    "images": np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3),
    "b": np.array([[0.5, 1.0], [2.0, np.inf]], np.float16)[:, ::-1],  # not contiguous
    "a": np.array([1.5, -0.0], np.float32),
    "labels": np.array([3, -1]),
    "d": np.array([[1e-300], [2.0]]),
}


@pytest.mark.parametrize("arrays", [SOME, {"only": np.zeros((0, 3, 3), np.float32), "rows": np.zeros(0, np.int64)}])
@pytest.mark.parametrize("info", [None, {"corrupt": json.dumps([["a/\xe9\n\t\x01.png", '"cut" \\ short']])}])
def test_a_shard_has_the_bytes_of_safetensors_own_writer(tmp_path, arrays, info):
    write_shard(tmp_path / "x.safetensors", arrays, info)
    own = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, info)
    assert (tmp_path / "x.safetensors").read_bytes() == own
    read = load_file(tmp_path / "x.safetensors")
    assert all(np.array_equal(read[name], array) for name, array in arrays.items())


def test_a_shard_made_twice_has_the_same_bytes(tmp_path):
    """safetensors' own writer puts the keys of the header in another order each time."""
    info = {f"key {number}": str(number) for number in range(8)}
    for name, facts in (("a", info), ("b", dict(reversed(info.items())))):
        write_shard(tmp_path / f"{name}.safetensors", SOME, facts)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert shard_info(tmp_path / "a.safetensors") == info
