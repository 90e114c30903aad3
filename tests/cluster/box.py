"""A throw-away SLURM cluster from Python: `with Box() as box: box.run("sinfo")`."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
PROGRAMS = ("unshare", "nsenter", "ip", "munged", "slurmctld", "slurmd", "sbatch")


def why_not() -> str | None:
    """Why no cluster can be started here, or None."""
    if os.geteuid() != 0:
        return "SLURM for real needs root (namespaces, daemons); run as root to include these tests"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"SLURM for real needs Debian's packages, see tests/cluster/README.md; missing: {', '.join(missing)}"
    namespaces = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "true"]
    if subprocess.run(namespaces, capture_output=True).returncode:
        return "SLURM for real needs mount, process and network namespaces; this machine lets nobody make them"
    return None


class NoDatabase(Exception):
    """The database of a cluster with accounting cannot start; in one line, why."""


class Box:
    """One cluster, alive inside a `with` block; commands run in its namespaces.

    Args:
        nodes: node names are n1, n2, ...
        accounting: with a database and slurmdbd, where the one account is "physics".
        slurmd_timeout: seconds without an answer after which a node is down.
    """

    def __init__(self, nodes: int = 2, accounting: bool = False, slurmd_timeout: int = 300):
        # Not in pytest's folders: the database's user must be able to enter it.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-box-"))
        self.settings = {"BOX": str(self.folder), "NODES": str(nodes), "ACCOUNTING": "yes" if accounting else "no"}
        self.settings["SLURMD_TIMEOUT"] = str(slurmd_timeout)

    def __enter__(self) -> "Box":
        with open(self.folder / "with_slurm.log", "w") as said:
            command = [str(HERE / "with_slurm.sh"), "sleep", "infinity"]
            self.outer = subprocess.Popen(command, env=os.environ | self.settings, stdout=said, stderr=said)
        deadline = time.monotonic() + 900
        while not (self.folder / "ready").exists():
            if self.outer.poll() is not None or time.monotonic() > deadline:
                said = "".join(log.read_text() for log in (self.folder / "with_slurm.log", *self.folder.glob("log/*")))
                self.__exit__()
                if self.outer.returncode == 3:
                    raise NoDatabase(next(line for line in said.splitlines() if "cannot start" in line))
                raise RuntimeError(f"no cluster: {said}")
            time.sleep(0.1)
        children = Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text().split()
        self.inner = children[0]
        return self

    def __exit__(self, *_: Any) -> None:
        self.outer.kill()  # unshare --kill-child: everything inside goes with it
        self.outer.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, line: str, folder: Path = REPOSITORY, **environment: str) -> list[str]:
        """A command that runs `line` of shell inside, in `folder`, with this Python's programs first on PATH."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        modules = f"{REPOSITORY}:{HERE}:{HERE.parent / 'training'}"
        variables = {"PATH": path, "PYTHONPATH": modules, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
        exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        script = f"cd {shlex.quote(str(folder))} && export {exports} && {line}"
        return ["nsenter", f"--target={self.inner}", "--mount", "--pid", "--net", "--", "bash", "-c", script]

    def run(
        self, line: str, folder: Path = REPOSITORY, timeout: float = 900, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `line` inside to its end."""
        command = self.command(line, folder, **environment)
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout)

    def start(self, line: str, log: Path) -> subprocess.Popen[bytes]:
        """Start `line` inside; what it says goes to `log`."""
        with open(log, "w") as said:
            return subprocess.Popen(self.command(line), stdout=said, stderr=said)

    def says(self, line: str) -> str:
        """Output of a command that must succeed."""
        done = self.run(line)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout.strip()

    def jobs(self) -> list[str]:
        """Ids of all jobs that this cluster ever had (it keeps them for the length of a test)."""
        return self.says("squeue --noheader --states=all --format=%A").split()

    def processes(self) -> list[str]:
        """Pids, seen from inside, of all training processes."""
        return self.says("pgrep --full '^[^ ]*python[^ ]* -u -m submitit.core._submit'").split()
