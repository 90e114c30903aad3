"""Jobs of a study on a disk that is full or read-only: one line, nothing lost, and the same results when there is room.

What runs are the commands that the records of a finished study name.
"""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from stablevelocity.records import Record, read_records

pytestmark = pytest.mark.workflow

RESULTS = Path("results/smoke")
KINDS = {
    "training": "runs/stablevm-va-s0/metrics.csv",
    "sampling": "samples/cfm-s0/step-00000020/ode/shard-00000.safetensors",
    "sweep": "metrics/sweep/cfm-s0.csv",
    "images": "data/images/train-00000.safetensors",
    "latents": "data/latents/train-00000.safetensors",
    "features": "data/features/train-00000.safetensors",
    "manifest": "data/latents/train.json",
    "autoencoder": "data/autoencoder/config.json",
    "fidelity": "metrics/fidelity/cfm-s0/step-00000020/ode.csv",
    "table": "tables/table2.csv",
    "figure": "figures/figure1.pdf",
    "claims": "claims.json",
    "page": "report.html",
}
MEASURED = ("images_per_s", "memory_mb", "seconds")


@pytest.fixture(scope="module")
def disk(smoke: Path, tmp_path_factory: pytest.TempPathFactory):
    """A finished study on a disk of its own; needs the right to mount one."""
    folder = Path(shutil.copytree(smoke, tmp_path_factory.mktemp("disk") / "project", symlinks=True))
    results = folder / "results"
    options = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(results)]
    if os.geteuid() != 0 or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    shutil.copytree(smoke / "results", results, dirs_exist_ok=True)
    yield folder
    subprocess.run(["umount", "-l", str(results)], check=True)


def run(record: Record) -> tuple[int, list[str]]:
    """(exit status, lines on the terminal) of the command that made a result."""
    done = subprocess.run(record.facts["command"], capture_output=True, text=True)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def content(file: Path) -> object:
    if file.suffix == ".csv":
        table = pd.read_csv(file, dtype=str)
        return table[[name for name in table if not name.startswith(MEASURED)]].to_csv()
    return None if file.suffix == ".html" else file.read_bytes()  # the page shows times


def hidden() -> list[Path]:
    return [file for file in RESULTS.rglob(".*") if "job" not in file.parts]


@contextlib.contextmanager
def filled(left: int):
    """A disk with `left` bytes of room."""
    with open("results/filler", "wb", buffering=0) as file:
        for size in (2**20, 4096):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size):
                    pass
    os.truncate("results/filler", max(0, Path("results/filler").stat().st_size - left))
    yield
    Path("results/filler").unlink()


@contextlib.contextmanager
def read_only():
    subprocess.run(["mount", "-o", "remount,ro", "results"], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", "results"], check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_on_a_full_or_a_read_only_disk_is_one_line_and_goes_on_when_there_is_room(
    kind, disk, server, monkeypatch
):
    monkeypatch.chdir(disk)
    record = next(one for one in read_records(RESULTS) if RESULTS / KINDS[kind] in one.outputs)
    before = {path: content(path) for path in record.outputs}
    for path in record.outputs:
        path.unlink()
    if kind == "training":
        shutil.rmtree(record.first.parent / "checkpoints")
    others = {path: path.read_bytes() for path in RESULTS.rglob("*") if path.is_file() and path.suffix != ".log"}
    places = [read_only(), *(filled(4096 * 4**k) for k in range(9))]
    failures = 0
    for place in places:
        with place:
            status, lines = run(record)
            left = hidden()
        if status == 0:
            break
        failures += 1
        errors = [line for line in lines if "error:" in line]
        assert len(errors) == 1, lines
        assert "No space left on device" in errors[0] or "ead-only" in errors[0] or "be written" in errors[0], errors
        assert str(RESULTS) in errors[0]
        assert not any("Traceback" in line for line in lines), lines
        assert left == []
    assert failures >= 2
    for path in record.outputs:
        path.unlink(missing_ok=True)
    assert run(record)[0] == 0
    assert {path: content(path) for path in before} == before
    changed = [path for path, was in others.items() if path.suffix != ".json" and path.read_bytes() != was]
    assert changed == []
