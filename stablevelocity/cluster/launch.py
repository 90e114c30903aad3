"""Where a training run happens: in this process, in processes of this machine, or in a job of SLURM. One code path."""

from stablevelocity.cluster.site import Site
from stablevelocity.cluster.tasks import Task
from stablevelocity.errors import UserError


def launch(tasks: list[Task], launcher: str, site: Site) -> None:
    """Train `tasks` to their end, resuming from their checkpoints; whatever the launcher, `Task.train` does it.

    Raises UserError when a run cannot be finished: what the training said, or which job died and where its log is.
    """
    if launcher == "local":
        failures = []
        for task in tasks:
            try:
                with task.lock():  # where another process trains it (Snakemake was killed, it was not), wait for that
                    if not task.complete():
                        task.train()
                    task.publish()
            except UserError as error:
                failures.append(error)
        if failures:
            raise UserError("; ".join(map(str, failures)))
        return
    # The library works without submitit; only these launchers need it.
    from stablevelocity.cluster.backends import backend
    from stablevelocity.cluster.submitter import Submitter

    try:
        Submitter(tasks, launcher, backend(launcher, site), site).wait()
    except OSError as error:
        raise UserError(f"{error.filename or tasks[0].folder}: {error.strerror or error}") from None
