"""The door of the command line: what the user can correct is one line that names the file, a bug is a traceback."""

import errno
import json
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from stablevelocity.cli.failures import one_line
from stablevelocity.cli.main import main
from stablevelocity.cli.options import say
from stablevelocity.data.shards import write_manifest, write_shard
from stablevelocity.errors import UserError
from stablevelocity.locks import _tell_once, try_lock
from stablevelocity.study import load_study, study_json

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    file = tmp_path / "study.json"
    file.write_text(study_json(load_study(ROOT / "config/smoke.yaml")))
    return file


def said(capsys, monkeypatch, *words: object) -> str:
    """The one line with which a command ends."""
    monkeypatch.setattr(sys, "argv", ["stablevelocity", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    return lines[0]


def index(study: Path, output: Path) -> list[object]:
    return ["image-index", "--study", study, "--split", "heldout", "--output", output]


def test_an_output_that_is_a_folder_or_lies_in_a_file_is_one_line(study, tmp_path, capsys, monkeypatch):
    (tmp_path / "folder.csv").mkdir()
    assert str(tmp_path / "folder.csv") in said(capsys, monkeypatch, *index(study, tmp_path / "folder.csv"))
    assert f"{study}" in said(capsys, monkeypatch, *index(study, study / "inside.csv"))


def shards(folder: Path) -> Path:
    arrays = {"images": np.zeros((4, 8, 8, 3), np.uint8), "labels": np.zeros(4, np.int64), "rows": np.arange(4)}
    write_shard(folder / "train-00000.safetensors", arrays, {"corrupt": "[]"})
    write_manifest(folder / "train.json", [folder / "train-00000.safetensors"], num_classes=1, class_names=["a"])
    return folder / "train-00000.safetensors"


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 a checkpoint of torch", "half", "no header"])
def test_a_damaged_shard_is_one_line(damage, tmp_path, study, capsys, monkeypatch):
    shard = shards(tmp_path)
    whole = shard.read_bytes()
    content = {"half": whole[: len(whole) // 2], "no header": b"\xff" * 500}.get(damage, damage)
    shard.write_bytes(content)
    (tmp_path / "encoder.json").write_text(json.dumps({"identity": "x"}))
    words = ["feature-manifest", "--encoder", tmp_path / "encoder.json", "--output", tmp_path / "f.json", shard]
    assert str(shard) in said(capsys, monkeypatch, *words)


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"shards": 1}', "\0\0", "{}"])
def test_a_wrong_manifest_is_one_line(content, tmp_path, study, capsys, monkeypatch):
    shards(tmp_path)
    manifest = tmp_path / "train.json"
    manifest.write_text(content)
    words = ["export-images", manifest, "--npz", tmp_path / "x.npz"]
    assert str(manifest) in said(capsys, monkeypatch, *words)


def raised(function) -> Exception:
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


def test_errors_of_formats_are_one_line_and_bugs_are_none(tmp_path):
    broken = tmp_path / "broken"
    broken.write_bytes(b"\0\1\2")
    for function in (lambda: tarfile.TarFile(broken), lambda: zipfile.ZipFile(broken), lambda: json.loads(b"{")):
        assert "is damaged or of another kind" in one_line(raised(function))
    assert "is damaged or of another kind" in one_line(SafetensorError("HeaderTooLarge"))
    assert one_line(OSError(errno.EIO, "Input/output error", "x.csv")) == "x.csv: Input/output error"
    for bug in (KeyError("lr"), ValueError("shape"), TypeError("x"), AssertionError(), RuntimeError("CUDA")):
        assert one_line(bug) is None


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_one_line_is_said_once_and_work_goes_on(number, tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    _tell_once.cache_clear()
    descriptor = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    assert try_lock(descriptor) is None
    assert try_lock(descriptor, wait=True) is None
    os.close(descriptor)
    assert [record.message for record in caplog.records if "has no locks" in record.message]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("number", [errno.EIO])
def test_other_errors_of_a_lock_are_errors(number, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with open(tmp_path / "lock", "w") as file, pytest.raises(OSError, match=os.strerror(number)):
        try_lock(file.fileno())


def test_nor_does_what_a_file_says_on_the_terminal(capsys):
    say("a\x07é\n\u202eb")
    assert capsys.readouterr().out == "a\\x07é\n\\u202eb\n"


def test_no_name_commands_the_terminal_or_breaks_the_line():
    """\x1b[2J clears a terminal; \udcff is what Python makes of a byte that is no text."""
    assert str(UserError("key \x1b[2J of\r\na\udcff é")) == "key \\x1b[2J of\\r\\na\\udcff é"
    assert one_line(FileNotFoundError(errno.ENOENT, "", "a\x1b[2J\n")) == "a\\x1b[2J\\n: no such file"
    assert one_line(OSError(errno.EIO, "broken", "a\x07")) == "a\\x07: broken"
