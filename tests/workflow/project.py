"""A copy of the project in a folder of its own, for tests that run Snakemake."""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Importing Snakemake takes two thirds of a dry run's time, so each call is a fork of a process that has imported it,
# and nothing of the project.
SERVER = """
import gc, json, os, sys
import snakemake.cli
gc.freeze()  # a fork's collections copy nothing of it
for line in sys.stdin:
    arguments, folder, environment, streams = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, stream in enumerate(streams):
            os.dup2(os.open(stream, os.O_RDWR), number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:0] = environment["PYTHONPATH"].split(":")
        sys.argv[:] = arguments
        sys.exit(snakemake.cli.main())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@functools.cache
def snakemake_server() -> subprocess.Popen[str]:
    """What calls of Snakemake are forked from; it ends when its stdin is closed, as at the end of this process."""
    command = [sys.executable, "-P", "-c", SERVER]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )


def run_snakemake(
    command: tuple[str, ...], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` with captured text."""
    with tempfile.NamedTemporaryFile("r") as stdout, tempfile.NamedTemporaryFile("r") as stderr:
        request = [command, str(folder), environment, [os.devnull, stdout.name, stderr.name]]
        forks = snakemake_server()
        assert forks.stdin
        assert forks.stdout
        forks.stdin.write(json.dumps(request) + "\n")
        return subprocess.CompletedProcess(command, int(forks.stdout.readline()), stdout.read(), stderr.read())


class Workflow:
    """A copy of the project, in which studies are run."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.results = folder / "results" / "smoke"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder),
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *command: str) -> subprocess.CompletedProcess:
        if command[0] == "snakemake":
            return run_snakemake(command, self.folder, self.environment)
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.run("snakemake", *arguments)

    def planned(self, *arguments: str) -> set[str]:
        """Names of the rules that a dry run would run, without `all`."""
        done = self.snakemake("-n", "all", *arguments, "--configfile", "config/smoke.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        text = done.stdout + done.stderr
        if "Nothing to be done" in text:
            return set()
        table = text.split("Job stats:")[-1].split("total")[0]
        return {line.split()[0] for line in table.splitlines()[3:] if line.strip()} - {"all"}


def copy_project(folder: Path) -> None:
    for name in ("stablevelocity", "workflow", "config"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    shutil.copy(ROOT / "slurm", folder / "slurm", follow_symlinks=False)
