"""What runs inside a training job, on every process of it.

A signal only sets a flag; all processes save the state at the next step boundary, and then rank 0 asks the backend to
queue the job again. USR2 means that time runs out: requeue. TERM means that the scheduler takes the job away: save and
end, it knows itself whether the job comes back.
"""

import logging
import os
import signal
import sys
import time
import uuid
from typing import Any

import submitit
from submitit.core.utils import UncompletedJobError
from submitit.helpers import TorchDistributedEnvironment

from stablevelocity.cluster.tasks import Task, read_if_there
from stablevelocity.errors import UserError
from stablevelocity.files import write_json
from stablevelocity.progress import log

LOOK_EVERY = 5.0  # seconds between looks whether another attempt has taken over
WAIT_FOR_RANK_0 = 60.0  # seconds in which it can write why the run failed


class TrainingJob:
    """The submitted callable: trains its tasks one after the other, from wherever their checkpoints are.

    `name` is unique to this submission; a run belongs to the job whose name is in its record.
    """

    def __init__(self, name: str, tasks: list[Task]):
        self.name, self.tasks = name, tasks

    def checkpoint(self) -> Any:
        """What submitit queues again: the same, for all state is in the runs' checkpoints."""
        return submitit.helpers.DelayedSubmission(self)

    def __call__(self) -> None:
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", force=True)
        log.setLevel(logging.INFO)
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        environment = submitit.JobEnvironment()
        flags = Flags()
        join_processes(environment)
        main = environment.global_rank == 0
        failure: Exception | None = None
        for task in self.tasks:
            record = read_if_there(task.files.record)
            if record is None or record["name"] != self.name:
                log.info(f"{task.run.name}: not this job's any more")
                continue
            attempt = Attempt(task, self.name, environment.job_id) if main else None
            try:
                finished = task.train(lambda: flags.stop or (attempt is not None and attempt.superseded()))  # noqa: B023
            except (UserError, OSError) as error:  # a full disk is the user's to correct as well
                if attempt:
                    # Submitter and overview put the run's name before it.
                    message = str(error).removeprefix(f"{task.run.name}: ")
                    attempt.write("failed", final=True, message=message)
                if environment.num_tasks > 1:
                    if not main:
                        self._wait_for_rank_0s_error(task)
                    raise  # the other processes do not know, and must not wait
                failure = error  # the job's other runs need not suffer
                continue
            except Exception as error:
                if attempt:
                    attempt.write("failed", final=False, message=f"{type(error).__name__}: {error}".splitlines()[0])
                raise
            if attempt:
                attempt.write("finished" if finished else "stopped")
            if not finished:
                self._leave(flags, attempt)
                return
        if failure:
            raise failure

    def _wait_for_rank_0s_error(self, task: Task) -> None:
        """Wait until rank 0 has written that the run failed, if it does: srun kills it when this process ends."""
        deadline = time.monotonic() + WAIT_FOR_RANK_0
        while time.monotonic() < deadline:
            said = task.state()
            if said.get("name") == self.name and said.get("state") == "failed":
                return
            time.sleep(0.5)

    def _leave(self, flags: "Flags", attempt: "Attempt | None") -> None:
        if attempt is None:
            return
        if flags.terminated or attempt.superseded():
            sys.exit(128 + signal.SIGTERM)
        try:
            flags.requeue()
        except UncompletedJobError:
            message = "the job reached its time limit more often than training.max_requeues of the site file allows"
            attempt.write("failed", final=True, message=message)
            raise


class Flags:
    """Set by the two signals: `stop` by each, `terminated` by TERM."""

    def __init__(self) -> None:
        self.stop = self.terminated = False
        # submitit's own handler saves and requeues within the signal; here it is called later, between steps.
        self._requeue: Any = signal.getsignal(signal.SIGUSR2)
        signal.signal(signal.SIGUSR2, self._set)
        signal.signal(signal.SIGTERM, self._set)

    def _set(self, number: int, frame: Any) -> None:
        self.stop = True
        self.terminated = self.terminated or number == signal.SIGTERM

    def requeue(self) -> None:
        """Queue the job again and end this process. Raises UncompletedJobError when it was queued often enough."""
        self._requeue(signal.SIGUSR2, None)


class Attempt:
    """One start of a job on a run, as its rank 0 writes it to the run's state.

    A node that lost its network may keep a process alive after the scheduler has started the job elsewhere: the one
    that started last has the run, the other ends without writing.
    """

    def __init__(self, task: Task, name: str, job_id: str):
        self.task, self.id = task, uuid.uuid4().hex
        before = task.state()
        starts = before.get("starts", 0) + 1 if before.get("hash") == task.hash else 1
        self.facts = {"hash": task.hash, "name": name, "job": job_id, "attempt": self.id, "starts": starts}
        self.looked = time.monotonic()
        self._put("running")

    def _put(self, state: str, **more: Any) -> None:
        write_json(self.task.files.state, {**self.facts, "state": state, **more})

    def write(self, state: str, **more: Any) -> None:
        if not self._is_last():
            return
        try:
            self._put(state, **more)
        except OSError as error:  # a full disk must not hide what there was to say
            log.info(f"{self.task.run.name}: {state} {more or ''}; {self.task.files.state} cannot be written ({error})")

    def superseded(self) -> bool:
        """Whether another attempt has the run now; looked up every few seconds."""
        now = time.monotonic()
        if now - self.looked < LOOK_EVERY:
            return False
        self.looked = now
        if self._is_last():
            return False
        log.info(f"{self.task.run.name}: another attempt has taken over")
        os._exit(128 + signal.SIGTERM)

    def _is_last(self) -> bool:
        state = read_if_there(self.task.files.state)
        return state is None or state["attempt"] == self.id


def join_processes(environment: submitit.JobEnvironment) -> None:
    """Tell torch.distributed who is who. A job of one process needs no group and gets none."""
    if environment.num_tasks == 1:
        return
    # Another port at every start: what is left of the last one may still hold its own.
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    digits = int("".join(character for character in environment.job_id if character.isdigit()))
    os.environ["MASTER_PORT"] = str(20_000 + (digits * 37 + restarts) % 40_000)
    import torch  # here, as the submitter imports this module too

    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    if environment.num_nodes == 1:  # whatever the host's name resolves to
        os.environ["MASTER_ADDR"] = "127.0.0.1"
    if not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"
