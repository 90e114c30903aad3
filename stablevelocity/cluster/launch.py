"""Where a training run happens: in this process, in processes of this machine, or in a job of SLURM. One code path."""

from stablevelocity.cluster.site import Site
from stablevelocity.cluster.tasks import Task
from stablevelocity.errors import UserError

LAUNCHERS = ("local", "submitit-local", "slurm")


def launch(tasks: list[Task], launcher: str, site: Site) -> None:
    """Train `tasks` to their end, resuming from their checkpoints; whatever the launcher, `Task.train` does it.

    Raises UserError when a run cannot be finished: what the training said, or which job died and where its log is.
    """
    if launcher not in LAUNCHERS:
        raise UserError(f"launcher: {launcher!r} given, expected one of {', '.join(LAUNCHERS)}")
    if launcher == "local":
        for task in tasks:
            if not task.complete():
                task.train()
            task.publish()
        return
    # The library works without submitit; only these launchers need it.
    from stablevelocity.cluster.head import Head
    from stablevelocity.cluster.schedulers import scheduler

    Head(tasks, launcher, scheduler(launcher, site), site).wait()
