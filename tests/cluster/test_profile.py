"""`snakemake --profile slurm all` in a fresh clone, on a cluster; and what is said when the cluster cannot take it."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from box import REPOSITORY, Box, NoDatabase

pytestmark = pytest.mark.slurm

MEASURED = {"toy_cost.csv"}  # seconds
LIMIT = 3600  # seconds; for a test that hangs
SOON = "--slurm-init-seconds-before-status-checks 2"
SITE = """\
poll_seconds: 1
setup: ["export GLOO_SOCKET_IFNAME=lo OMP_NUM_THREADS=1"]
"""


@pytest.fixture(scope="module")
def box():
    try:
        with Box(accounting=True) as box:
            yield box
    except NoDatabase as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def finished(box: Box, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with the whole study, made without SLURM."""
    folder = clone(tmp_path_factory.mktemp("finished") / "clone")
    done = snakemake(box, folder, "--cores 2")
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


def clone(folder: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, folder], check=True)
    return folder


def snakemake(box: Box, folder: Path, arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = f"snakemake all {arguments} --configfile config/smoke.yaml"
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
        [Path(sys.executable).with_name("snakemake"), "all", "--profile", "slurm", "--configfile", "config/smoke.yaml"],
        cwd=folder,
        env={"PATH": f"{programs}", "PYTHONPATH": str(folder), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert said == ["error: sbatch is not on PATH; expected a login node of a SLURM cluster"], done.stderr


def occupy(box: Box) -> Callable[[], str]:
    """Fill both nodes, so that jobs wait in the queue; what frees them again."""
    box.says("scancel --name=occupy")  # of a test that failed
    box.says("sbatch --job-name=occupy --account=physics --nodes=2 --exclusive --time=1-0 --wrap 'sleep infinity'")
    while box.says("squeue --noheader --name=occupy --states=RUNNING") == "":
        time.sleep(0.2)
    return lambda: box.says("scancel --name=occupy")


class Start:
    """A start of Snakemake inside the box, in a session of its own, as from a terminal of its own."""

    def __init__(self, box: Box, folder: Path, name: str, target: str, **environment: str):
        self.box, self.lock, self.log = box, folder / "results/smoke/lock", folder / f"{name}.log"
        arguments = f"{target} --profile slurm {SOON} --configfile config/smoke.yaml"
        line = box.command(f"exec setsid snakemake {arguments}", folder, PYTHONPATH=str(folder), **environment)
        with open(self.log, "w") as said:
            self.process = subprocess.Popen(line, stdout=said, stderr=said)

    def said(self) -> str:
        return self.log.read_text()

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert self.process.poll() is None, f"ended before it was {what}: {self.said()}"
            assert time.monotonic() < deadline, f"never {what}: {self.said()}"
            time.sleep(0.2)

    def says(self, text: str) -> None:
        self.wait_for(lambda: text in self.said(), f"said {text}")

    def signal(self, name: str) -> None:
        """To all processes of the session, as a terminal does; KILL to Snakemake alone."""
        process = self.lock.read_text().split()[1]
        self.box.says(f"kill -{name} {process}" if name == "KILL" else f"kill -{name} -- -{process}")


def test_a_killed_snakemake_starts_again_and_its_training_is_submitted_once(
    box: Box, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "clone"
    shutil.copytree(finished, folder, symlinks=True)
    shutil.rmtree(folder / "results/smoke/runs")
    (folder / "config" / "site.yaml").write_text(SITE + "account: physics\n")
    target = "results/smoke/runs/cfm-s0/metrics.csv"
    free = occupy(box)  # the job stays in the queue
    first = Start(box, folder, "first", target)
    first.says("train cfm-s0: job ")
    assert "PENDING (" in first.said()  # and why
    beside = Start(box, folder, "beside", target)
    assert beside.process.wait(LIMIT) != 0
    assert "cannot be locked" in beside.said()
    first.signal("KILL")
    first.process.wait()
    second = Start(box, folder, "second", target)
    second.says("train cfm-s0: job ")
    second.signal("INT")
    second.says("goes on; to stop it: scancel ")
    second.signal("INT")
    assert second.process.wait(LIMIT) != 0
    third = Start(box, folder, "third", target)
    third.says("train cfm-s0: job ")
    free()
    assert third.process.wait(LIMIT) == 0, third.said()
    names = box.says("squeue --noheader --states=all --format=%j").split()
    assert len([name for name in names if name.startswith("sv-cfm-s0-")]) == 1
    for path in (finished / "results/smoke/runs/cfm-s0/weights").iterdir():
        assert path.read_bytes() == (folder / "results/smoke/runs/cfm-s0/weights" / path.name).read_bytes()


def test_ordinary_rules_outlive_slurmctld_and_need_no_accounting_and_nothing_of_an_outer_job(
    box: Box, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "clone"
    shutil.copytree(finished, folder, symlinks=True)
    (folder / "config" / "site.yaml").write_text(SITE + "account: physics\n")
    programs, calls, failures = tmp_path / "bin", tmp_path / "calls", tmp_path / "failures"
    programs.mkdir()
    for name in ("sacct", "sacctmgr", "sshare"):
        (programs / name).write_text("#!/bin/sh\nexec sleep infinity\n")
    squeue = shutil.which("squeue")
    (programs / "squeue").write_text(
        f'#!/bin/sh\necho "$SLURM_CONF$SLURM_JOB_ID$SLURM_MEM_PER_NODE" >>{calls}\n'
        f'{squeue} "$@" || {{ echo failed >>{failures}; exit 1; }}\n'
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    outer = {"SLURM_CONF": "/etc/slurm/slurm.conf", "SLURM_JOB_ID": "7", "SLURM_MEM_PER_NODE": "1"}
    path = f"{programs}:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    free = occupy(box)
    start = Start(box, folder, "start", "toy --forcerun toy", PATH=path, **outer)
    start.says("has been submitted with SLURM jobid")
    box.says(f"kill $(cat {box.folder}/run/slurmctld.pid)")
    # More often than the plugin asks by itself.
    start.wait_for(lambda: failures.exists() and len(failures.read_text().split()) > 5, "asked in vain")
    box.says("slurmctld")
    start.wait_for(lambda: box.run("scontrol ping").returncode == 0, "up again")
    free()
    assert start.process.wait(LIMIT) == 0, start.said()
    assert set(calls.read_text().split()) == {"/etc/slurm/slurm.conf"}


def test_a_packed_job_keeps_what_it_finished_and_the_next_start_makes_the_rest(
    box: Box, finished: Path, tmp_path: Path
) -> None:
    """A set of four shards, one job of SLURM: one shard fails. Then it is made, and what follows, and no more."""
    folder = tmp_path / "clone"
    shutil.copytree(finished, folder, symlinks=True)
    (folder / "config" / "site.yaml").write_text(SITE + "account: physics\n")
    arguments = f"--profile slurm {SOON} --config 'sampling={{shards: 4, block: 16}}'"
    assert snakemake(box, folder, arguments).returncode == 0
    results = folder / "results/smoke"
    samples = results / "samples/cfm-s0/step-00000020/ode"
    shutil.rmtree(samples)
    in_the_way = samples / "shard-00002.safetensors.blocks"
    in_the_way.parent.mkdir()
    in_the_way.touch()
    before = set(box.jobs())  # SLURM forgets the oldest after a while
    assert snakemake(box, folder, arguments).returncode != 0
    assert len(set(box.jobs()) - before) == 1
    made = set(samples.glob("*.safetensors"))
    assert samples / "shard-00002.safetensors" not in made
    in_the_way.unlink()
    files = [path for path in results.rglob("*") if path.is_file()]
    inodes = {path: path.stat().st_ino for path in files}  # a file that is made again is a new one
    assert snakemake(box, folder, arguments).returncode == 0
    assert len(set(box.jobs()) - before) == 3  # the rest of the set, then its manifest and metrics
    again = {path for path in files if path.stat().st_ino != inodes[path]}
    assert made.isdisjoint(again)
    assert len(list(samples.glob("*.safetensors"))) == 4
    assert not [path for path in again if "stablevm-va-s0" in str(path) or "weights" in str(path)]
    assert results / "report.html" in again


def test_a_fresh_clone_makes_the_tables_of_the_local_run(box: Box, finished: Path, tmp_path: Path) -> None:
    """Bit for bit, on one machine and one process a run; but for the table of measured times."""
    here, there = finished, clone(tmp_path / "there")
    (there / "config" / "site.yaml").write_text(SITE + "account: physics\n")
    done = snakemake(box, there, f"--profile slurm {SOON}")
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
