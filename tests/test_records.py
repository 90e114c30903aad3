"""What records say of files that are made again, or missing; of whole studies: tests/workflow/test_upgrade.py."""

import json
import os
from pathlib import Path

from stablevelocity.provenance import provenance_file, write_provenance
from stablevelocity.records import lost, read_records


def write(folder: Path, name: str, *inputs: str) -> None:
    """A file with its record."""
    if not (folder / name).exists():
        (folder / name).write_text(name)
    paths = [folder / one for one in inputs]
    write_provenance([folder / name], inputs=paths, settings="", code="c", command=["x"])


def recorded_time(folder: Path, content: str) -> int:
    """Of a file that is made again from `in`, in its new record."""
    output = folder / "out"
    output.unlink(missing_ok=True)
    output.write_text(content)
    write_provenance([output], inputs=[folder / "in"], settings="", code="c", command=["x"])
    return json.loads(provenance_file(output).read_text())["outputs"][str(output)]["mtime_ns"]


def test_a_file_made_again_with_the_same_bytes_keeps_its_time_unless_an_input_is_newer(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("1")
    first = recorded_time(tmp_path, "a")
    assert recorded_time(tmp_path, "a") == first
    other = recorded_time(tmp_path, "b")
    assert other > first
    os.utime(tmp_path / "in")
    assert recorded_time(tmp_path, "b") > other


def test_an_input_that_was_itself_made_again_with_the_same_bytes_is_not_newer(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("1")
    write(tmp_path, "in")
    first = recorded_time(tmp_path, "a")
    os.utime(tmp_path / "in")
    write(tmp_path, "in")
    assert recorded_time(tmp_path, "a") == first


def test_a_missing_file_costs_itself_where_all_that_was_made_of_it_had_its_bytes(tmp_path: Path) -> None:
    write(tmp_path, "shard")
    write(tmp_path, "first", "shard")
    write(tmp_path, "second", "shard")
    assert lost(read_records(tmp_path)) == {}
    (tmp_path / "shard").unlink()
    assert list(lost(read_records(tmp_path))) == [str(tmp_path / "shard")]
    # One was made of other bytes than those that will come out.
    (tmp_path / "shard").write_text("other")
    write(tmp_path, "second", "shard")
    (tmp_path / "shard").unlink()
    assert lost(read_records(tmp_path)) == {}
