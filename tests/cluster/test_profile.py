"""`snakemake --profile slurm all` in a fresh clone, on a cluster; and what is said when the cluster cannot take it."""

import subprocess
import sys
from pathlib import Path

import pytest
from box import REPOSITORY, Box

pytestmark = pytest.mark.slurm

MEASURED = {"toy_cost.csv"}  # seconds
LIMIT = 1500  # seconds; for a test that hangs
SITE = """\
poll_seconds: 1
setup: ["export GLOO_SOCKET_IFNAME=lo OMP_NUM_THREADS=1"]
"""


@pytest.fixture(scope="module")
def box():
    with Box(accounting=True) as box:
        yield box


def clone(folder: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, folder], check=True)
    return folder


def snakemake(box: Box, folder: Path, arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = f"snakemake {arguments} --configfile config/smoke.yaml all"
    return box.run(line, folder, LIMIT, PYTHONPATH=str(folder), **environment)


@pytest.mark.parametrize(
    "site, message",
    [
        ("partitions: {cpu: nosuch}", "invalid partition specified: nosuch"),
        ("training: {mem_gb: 5000}", "refuses the jobs of training"),
        ("rules: {toy: {mem_gb: 5000}}", "refuses the jobs of toy"),
        ("account: nosuch", "Invalid account"),
        ("partitions: {gpus: x}", "config/site.yaml: partitions.gpus: no such key"),
        ("launcher: bash", "config/site.yaml: launcher:"),
    ],
    ids=["partition", "memory-of-training", "memory-of-a-rule", "account", "unknown-key", "launcher"],
)
def test_what_the_cluster_cannot_take_is_said_in_one_line_before_anything_is_submitted(
    box: Box, tmp_path: Path, site: str, message: str
) -> None:
    folder = clone(tmp_path / "clone")
    (folder / "config" / "site.yaml").write_text(site + "\n")
    before = box.jobs()
    done = snakemake(box, folder, "--profile slurm")
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, done.stderr
    assert message in said[0]
    assert "Traceback" not in done.stderr
    assert box.jobs() == before


def test_without_sbatch_one_line_says_so(tmp_path: Path) -> None:
    """On a machine without SLURM, as far as PATH goes."""
    folder = clone(tmp_path / "clone")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "sh", "env", "uname", "which"):
        (programs / name).symlink_to(f"/bin/{name}")
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("snakemake")),
            "--profile",
            "slurm",
            "--configfile",
            "config/smoke.yaml",
            "all",
        ],
        cwd=folder,
        env={"PATH": f"{programs}", "PYTHONPATH": str(folder), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert said == ["error: sbatch is not on PATH; expected a login node of a SLURM cluster"], done.stderr


def test_a_fresh_clone_makes_the_tables_of_the_local_run(box: Box, tmp_path: Path) -> None:
    """Bit for bit, on one machine and one process a run; but for the table of measured times."""
    here, there = clone(tmp_path / "here"), clone(tmp_path / "there")
    (there / "config" / "site.yaml").write_text(SITE + "account: physics\n")
    done = snakemake(box, there, "--profile slurm --slurm-init-seconds-before-status-checks 2")
    assert done.returncode == 0, done.stderr[-5000:]
    done = snakemake(box, here, "--cores 2")
    assert done.returncode == 0, done.stderr[-5000:]
    tables = sorted(path.name for path in (here / "results/smoke/tables").glob("*.csv"))
    assert len(tables) > 10
    assert [
        name
        for name in tables
        if name not in MEASURED
        and (here / "results/smoke/tables" / name).read_text() != (there / "results/smoke/tables" / name).read_text()
    ] == []
    # Training went through submitit, and `jobs` tells it.
    told = box.run("stablevelocity jobs results/smoke", there, PYTHONPATH=str(there)).stdout.splitlines()
    assert len(told) == 3
    assert all(line.split()[1] == "finished" and line.split()[2].isdigit() for line in told[1:]), told
