"""A training run that takes its time without taking the processor, and a submitter for it: what the fault tests start.

python slow_training.py DATA RUNS RUN LAUNCHER SITE [SECONDS_PER_STEP] [STEPS] [CLASS OF THE TASK]
"""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_run import tiny_run

from stablevelocity.cluster.launch import launch
from stablevelocity.cluster.site import load_site
from stablevelocity.cluster.tasks import Task
from stablevelocity.errors import UserError


@dataclass(frozen=True)
class SlowTask(Task):
    """A task whose every step waits a while first, and after the first checkpoint as long as there is a file `hold`
    beside its folder; the weights do not depend on it.
    """

    seconds: float = 0.0

    @property
    def hold(self) -> Path:
        return self.folder.with_name("hold")

    def train(self, should_stop: Callable[[], bool] = lambda: False) -> bool:
        def slow() -> bool:
            time.sleep(self.seconds)
            while self.hold.exists() and self.last_step():
                time.sleep(0.01)
            return should_stop()

        return super().train(slow)


def slow_task(data: Path, runs: Path, name: str, seconds: float, steps: int) -> SlowTask:
    """StableVM without features: with a bank to restore, and nothing else to wait for."""
    run = tiny_run(steps=steps, checkpoint_every=10).model_copy(
        update={"name": name, "alignment": None, "class_token": False}
    )
    return SlowTask(run, data / "latents" / "train.json", None, runs / name, "", seconds)


@dataclass(frozen=True)
class BrokenTask(SlowTask):
    """A task that ends for good whenever it is begun."""

    def train(self, should_stop: Callable[[], bool] = lambda: False) -> bool:
        raise UserError("the loss is not finite")


@dataclass(frozen=True)
class NonFiniteTask(SlowTask):
    """A task whose loss is not finite in its second step, and whose dump takes the time of a large model's."""

    def train(self, should_stop: Callable[[], bool] = lambda: False) -> bool:
        from stablevelocity.training import trainer

        save = trainer.save_tensors

        def slowly(path: Path, *arguments: Any) -> None:
            time.sleep(12)  # SLURM lets go after KillWait, 5 here
            save(path, *arguments)

        trainer.save_tensors = slowly
        return super().train(should_stop)


def main(
    data: str,
    runs: str,
    name: str,
    launcher: str,
    site: str,
    seconds: str = "0",
    steps: str = "40",
    kind: str = "SlowTask",
) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    try:
        task = slow_task(Path(data), Path(runs), name, float(seconds), int(steps))
        if kind == "NonFiniteTask":
            training = task.run.training.model_copy(update={"lr": 1e30})
            run = task.run.model_copy(update={"training": training})
            task = NonFiniteTask(run, task.latents, task.features, task.folder, task.begun, task.seconds)
        launch([task], launcher, load_site(site))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
