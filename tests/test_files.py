"""Files are whole or absent."""

import pytest

from stablevelocity.files import atomic_write, read_json, sha256, write_json


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
