"""Files are whole or absent."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stablevelocity.files import (
    atomic_write,
    clear_leftovers,
    clear_safetensors_leftovers,
    read_json,
    sha256,
    write_json,
)


def test_an_interrupted_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def interrupted():
        with atomic_write(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_keeps_the_suffix_and_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "figure.png"
    with atomic_write(path) as temporary:
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"x")
    assert path.read_bytes() == b"x"


def test_json_round_trips(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1, 2.5, None]})
    assert read_json(tmp_path / "x.json") == {"a": [1, 2.5, None]}


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    # FIPS 180-2, example B.1
    assert sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


WRITER = """
import sys
from stablevelocity.files import atomic_write

with atomic_write(sys.argv[1]) as temporary:
    temporary.write_bytes(b"x" * 1000)
    print("written", flush=True)
    sys.stdin.readline()
"""


def writer(path: Path) -> subprocess.Popen:
    """A process that has written the temporary file of `path` and waits."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"written\n"
    return process


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.name.startswith("."))


@pytest.mark.parametrize("name", ["shard.safetensors", "no-suffix", "a[b]*?.csv", "{x}.json"])
def test_what_a_killed_writer_left_is_gone_after_the_next_write(tmp_path, name):
    killed = writer(tmp_path / name)
    killed.kill()
    killed.wait()
    assert len(hidden(tmp_path)) == 1
    assert not (tmp_path / name).exists()
    with atomic_write(tmp_path / name) as temporary:
        assert hidden(tmp_path) == [temporary.parent.name]
        temporary.write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"whole"


def test_a_live_writer_of_this_or_of_another_file_is_left_alone(tmp_path):
    one, other = tmp_path / "shard.safetensors", tmp_path / "shard.safetensors.b"
    live = [writer(one), writer(other)]
    killed = writer(other)
    killed.kill()
    killed.wait()
    clear_leftovers(one)
    assert len(hidden(tmp_path)) == 3
    with atomic_write(one) as temporary:
        temporary.write_bytes(b"mine")
    for process in live:
        process.communicate(b"\n", timeout=60)
        assert process.returncode == 0
    assert one.read_bytes() == other.read_bytes() == b"x" * 1000  # the last one wins, as ever
    assert len(hidden(tmp_path)) == 1  # of the killed one
    clear_leftovers(other)
    assert hidden(tmp_path) == []


def test_hidden_files_that_are_none_of_ours_stay(tmp_path):
    (tmp_path / ".shard.safetensors.deadbeef").mkdir()
    (tmp_path / ".shard.safetensors.deadbeef" / "mine").touch()
    (tmp_path / ".shard.safetensors").touch()
    (tmp_path / ".git").mkdir()
    before = sorted(tmp_path.rglob("*"))
    clear_leftovers(tmp_path / "shard.safetensors")
    clear_safetensors_leftovers(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_temporary_files_of_libraries_are_removed_with_ours(tmp_path):
    with atomic_write(tmp_path / "x") as temporary:
        temporary.with_name(".tmpA1b2C3").touch()
        temporary.touch()
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / ".tmpA1b2C3").touch()
    clear_safetensors_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["vae", "x"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_the_mode_of_a_file_follows_the_umask_whoever_made_it(tmp_path, umask):
    """Libraries make files that only their user may read, as `tempfile` does."""
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "shard.safetensors") as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "shard.safetensors").stat().st_mode) == 0o666 & ~umask
