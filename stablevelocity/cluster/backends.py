"""Submit, look up and cancel jobs: on SLURM, or as processes of this machine. Both through submitit.

squeue is asked, never sacct: accounting is absent on many clusters and late on others. Its answer says whether to wait;
whether a run succeeded is decided by its files alone.
"""

import contextlib
import getpass
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.local.local import LocalExecutor

from stablevelocity.cluster.site import Site
from stablevelocity.errors import UserError
from stablevelocity.locks import private_folder

ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
ENDED |= {"REVOKED", "TIMEOUT"}
GONE = "GONE"  # the backend does not know the job any more: it ended a while ago
# In what sbatch says when it may take the same job later.
TRANSIENT = ("unable to contact", "timed out", "connection refused", "authentication", "munge", "try again")
TRANSIENT += ("resource t", "temporarily unable", "submitjob")  # MaxSubmitJobs, GrpSubmitJobs
NO_SLURM = "{} is not on PATH; expected a login node of a SLURM cluster"
TORCH_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


class Unreachable(Exception):
    """The backend does not answer, or takes no job, for now: nothing is known, wait."""


def taken_later(said: str) -> bool:
    """Whether SLURM, which says this, may take the same job later."""
    return any(part in said.lower() for part in TRANSIENT)


def is_over(state: str) -> bool:
    return state in ENDED or state == GONE


class Slurm:
    def __init__(self, site: Site):
        self.site = site

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of submitit's executor for a training job."""
        site, jobs = self.site, self.site.training
        parameters: dict[str, Any] = {
            "time": jobs.minutes,
            "nodes": jobs.nodes,
            "ntasks_per_node": jobs.gpus or jobs.processes,
            "cpus_per_task": jobs.cpus,
            "mem": f"{round(jobs.mem_gb * 1024)}MB",
            "signal_delay_s": jobs.stop_seconds,
            "account": site.account,
            "qos": site.qos,
            "partition": site.partitions.gpu if jobs.gpus else site.partitions.cpu,
            "setup": site.setup or None,
            # A process that dies takes the others with it, which would wait for it in a reduction. srun of SLURM 22.05
            # to 23.02 does not take the number of processors over from the job.
            "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={jobs.cpus}"],
            "additional_parameters": {"requeue": True},
        }
        if jobs.gpus:
            parameters["constraint"] = site.constraint
            gres = site.gres.format(gpus=jobs.gpus) if site.gres else None
            parameters |= {"gres": gres} if gres else {"gpus_per_node": jobs.gpus}
        return {name: value for name, value in parameters.items() if value is not None}

    def submit(self, job: Callable[[], None], name: str, folder: Path) -> str:
        """Submit a callable; return its id. Raises UserError when it is refused, Unreachable when it may be later."""
        with clean_environment():
            try:
                requeues = self.site.training.max_requeues
                executor = submitit.SlurmExecutor(private_folder(folder), max_num_timeout=requeues)
                executor.update_parameters(job_name=name, **self.parameters())
                return executor.submit(job).job_id
            except (FailedJobError, FailedSubmissionError) as error:
                said = one_line(str(error))
            except (FileNotFoundError, RuntimeError):  # submitit looks for srun
                raise UserError(NO_SLURM.format("sbatch")) from None
        if taken_later(said):
            raise Unreachable(said)
        raise UserError(f"SLURM refuses the training job: {said}")

    def find(self, name: str) -> str | None:
        """Return the id of a job by its name, when there is one that has not ended."""
        for line in self._squeue("--user", getpass.getuser(), "--name", name, "--format", "%A %T").splitlines():
            job_id, state = line.split()
            if not is_over(state):
                return job_id
        return None

    def states(self, job_ids: list[str]) -> dict[str, str]:
        """Return by job: a word such as RUNNING or FAILED, PENDING with its reason, or GONE."""
        states = dict.fromkeys(job_ids, GONE)
        for line in self._squeue("--jobs", ",".join(job_ids), "--format", "%A %T %r").splitlines():
            job_id, state, reason = line.split(maxsplit=2)
            states[job_id] = f"{state} ({reason})" if state == "PENDING" else state
        return states

    def _squeue(self, *options: str) -> str:
        command = ["squeue", "--noheader", "--states", "all", *options]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except FileNotFoundError:
            raise UserError(NO_SLURM.format("squeue")) from None
        except subprocess.TimeoutExpired:
            raise Unreachable("squeue did not answer in 60 s") from None
        if done.returncode == 0:
            return done.stdout
        if "Invalid job id" in done.stderr:
            return ""
        raise Unreachable(one_line(done.stderr))

    def cancel_command(self, job_id: str) -> str:
        """Return the command that stops a job."""
        return f"scancel {job_id}"


class LocalProcesses:
    """Processes on this machine that outlive the one that started them, as a job of a cluster does.

    A job's id is "pid.start", with its time of start, because a pid alone may be another process by now.
    """

    def __init__(self, site: Site):
        self.site = site

    def submit(self, job: Callable[[], None], name: str, folder: Path) -> str:
        jobs = self.site.training
        if jobs.nodes > 1:
            raise UserError(f"training.nodes: {jobs.nodes} given, the launcher submitit-local has 1")
        with clean_environment(), children_ignore_signals():
            executor = LocalExecutor(private_folder(folder))
            tasks, year = jobs.gpus or jobs.processes, 366 * 24 * 60
            executor.update_parameters(tasks_per_node=tasks, gpus_per_node=jobs.gpus, timeout_min=year)
            pid = executor.submit(job).job_id
        return f"{pid}.{_start_of(pid)}"

    def find(self, name: str) -> str | None:
        return None

    def states(self, job_ids: list[str]) -> dict[str, str]:
        processes = {job_id: job_id.split(".") for job_id in job_ids}
        return {job: "RUNNING" if _start_of(pid) == start else GONE for job, (pid, start) in processes.items()}

    def cancel_command(self, job_id: str) -> str:
        return f"kill {job_id.split('.')[0]}"


Backend = Slurm | LocalProcesses


def backend(launcher: str, site: Site) -> Backend:
    return Slurm(site) if launcher == "slurm" else LocalProcesses(site)


def _start_of(pid: str) -> str | None:
    """When a living process started, in clock ticks since boot; None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


@contextlib.contextmanager
def clean_environment() -> Iterator[None]:
    """Hide an outer job's variables inside, so that a nested submission takes nothing from it."""
    hidden = remove_job_variables()
    try:
        yield
    finally:
        os.environ.update(hidden)


def remove_job_variables() -> dict[str, str]:
    """Remove an outer job's variables, all but SLURM_CONF, from the environment; return them."""
    return {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if (name.startswith(("SLURM_", "SUBMITIT_")) and name != "SLURM_CONF") or name in TORCH_VARIABLES
    }


@contextlib.contextmanager
def children_ignore_signals() -> Iterator[None]:
    """Start processes inside that ignore Ctrl-C and the end of the terminal, which are meant for the submitter."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def one_line(text: str) -> str:
    """Return what a tool of SLURM said as one line, without the tool's name."""
    lines = [line.partition("error: ")[2] or line for line in text.splitlines() if line.strip()]
    return "; ".join(line.strip() for line in lines)
