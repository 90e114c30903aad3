"""A copy of the project in a folder of its own, for tests that run Snakemake."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


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
