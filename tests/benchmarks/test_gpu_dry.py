"""The GPU check, on a CPU with tiny sizes: every part runs to its end, and none can take another down."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forks import spawn

from benchmarks.gpu import PARTS
from benchmarks.gpu.__main__ import run_part, write_results
from benchmarks.gpu.rows import Report, read_rows

ROOT = Path(__file__).parents[2]


def run_dry(part: str, folder: Path) -> None:
    importlib.import_module(f"benchmarks.gpu.{part}").run(Report(part, folder, dry=True, until=time.time() + 1200))


def test_every_part_runs_to_its_end_and_every_check_passes(tmp_path: Path) -> None:
    for part in PARTS:  # in their order, since the later read what the earlier found
        assert spawn(run_dry, part, tmp_path) == 0, part
    rows = read_rows(tmp_path)
    assert [row["name"] for row in rows if row["kind"] == "error"] == []
    assert [row["name"] for row in rows if row["kind"] == "check" and not row["passed"]] == []
    assert {row["part"] for row in rows} == set(PARTS)


def test_the_command_runs_its_parts_and_writes_what_they_found(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry", "--only", "ceilings", "bank", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    rows = json.loads((tmp_path / "results.json").read_text())
    assert {row["part"] for row in rows} == {"ceilings", "bank"}
    # The folder comes back from another machine, which takes no more.
    assert len(list(tmp_path.iterdir())) <= 8


def test_a_part_that_hangs_is_stopped_and_its_rows_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    hangs = "import time\n\ndef run(report):\n    report.measured('before', 1, 's')\n    time.sleep(600)\n"
    (tmp_path / "benchmarks" / "gpu" / "ceilings.py").write_text(hangs)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.chdir(tmp_path)  # python -m looks there first
    for seconds in (8, 60, 240):  # a busy machine takes longer until the part begins
        output = tmp_path / str(seconds)
        output.mkdir()
        began = time.monotonic()
        run_part("ceilings", seconds, output, dry=True)
        assert time.monotonic() - began < seconds + 300
        if read_rows(output)[0]["name"] == "before":
            break
    write_results(output)
    rows = json.loads((output / "results.json").read_text())
    assert [row["name"] for row in rows] == ["before", "the part", "seconds in all"]
    assert rows[1]["kind"] == "error"


def test_what_fails_inside_a_part_leaves_the_rest_of_it_alone(tmp_path: Path) -> None:
    report = Report("ceilings", tmp_path, dry=True, until=0)
    with report.guarded("first"):
        raise RuntimeError("no memory")
    with report.guarded("second"):
        report.check("nan", float("nan"), 1.0)
        report.check("equal", 0.0, 0)
    rows = read_rows(tmp_path)
    assert [row["kind"] for row in rows] == ["error", "check", "check"]
    assert [row.get("passed") for row in rows] == [None, False, True]


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    Report("ceilings", tmp_path, dry=True, until=0).check("whole", 0.0, 0)
    with open(tmp_path / "rows.jsonl", "a") as file:
        file.write('{"part": "ceil')
    assert [row["name"] for row in read_rows(tmp_path)] == ["whole"]
