"""Trainers on random data of some shape: what the parts `training`, `compiled` and `learning` share."""

import contextlib
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from accelerate.state import AcceleratorState

from benchmarks.trainer_step import first_run, short
from stablevelocity.data.shards import write_manifest, write_shard
from stablevelocity.models.networks import build_network
from stablevelocity.study import Run, load_study
from stablevelocity.training import trainer as trainer_module
from stablevelocity.training.trainer import Trainer

CONFIG = Path(__file__).parents[2] / "config"
TINY = {"name": None, "depth": 2, "width": 32, "heads": 4, "encoder_depth": 1, "projector_width": 32}


def write_data(
    folder: Path, *, images: int, classes: int, shape: tuple[int, int, int], tokens: int, width: int
) -> None:
    """Latents and features in the layout of the data stages; 64 random images, repeated: drawing takes time."""
    rng = np.random.default_rng(0)

    def half(*size: int) -> np.ndarray:
        return np.resize(rng.standard_normal((64, *size), dtype=np.float32).astype(np.float16), (images, *size))

    latents = {"mean": half(*shape), "std": np.abs(half(*shape)) / 8, "labels": np.arange(images) % classes}
    info = {"scale": 1.0, "num_classes": classes, "autoencoder": "none", "identity": "none"}
    for name, arrays, more in (
        ("latents", latents, info),
        ("features", {"tokens": half(tokens, width), "class_token": half(width)}, {"encoder": "none"}),
    ):
        shard = folder / name / "0.safetensors"
        write_shard(shard, arrays)
        write_manifest(folder / name / "train.json", [shard], **more)


def imagenet_run(arm: str, *, dry: bool, **training: Any) -> Run:
    """An arm of config/imagenet256.yaml for an open number of steps."""
    run = first_run(load_study(CONFIG / "imagenet256.yaml"), arm)
    if dry:
        training |= {"model": run.training.model.model_copy(update=TINY), "batch": 8}
    run = short(run, 10**6, **training)
    if dry and run.stablevm:
        bank = run.stablevm.bank.model_copy(update={"capacity": 4})
        run = run.model_copy(update={"stablevm": run.stablevm.model_copy(update={"bank": bank})})
    return run


def make_trainer(run: Run, data: Path, folder: Path, *, on_device: bool = False, cpu: bool = False) -> Trainer:
    """A trainer with a fresh state of accelerate's, which keeps the precision of the first one.

    `on_device`: fresh weights are drawn on the device, seconds instead of many (and other numbers). `cpu`: as if there
    were no device.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    features = data / "features" / "train.json" if run.alignment or run.class_token else None

    def build(*arguments: Any) -> Any:
        with torch.device("cuda" if on_device and torch.cuda.is_available() else "cpu"):
            return build_network(*arguments)

    with mock.patch.object(trainer_module, "build_network", build):
        if not cpu:
            return Trainer(run, data / "latents" / "train.json", features, folder)
        with mock.patch("torch.cuda.is_available", return_value=False):
            return Trainer(run, data / "latents" / "train.json", features, folder)


class Stopwatch:
    """Seconds per step of a trainer's own loop, and the loss of each step. Each step ends by reading its loss, so the
    host's clock at the start of `update` is the device's too.
    """

    def __init__(self, trainer: Trainer):
        self.starts: list[float] = []
        self.losses: list[float] = []
        update = trainer.update

        def timed(*arguments: Any) -> Any:
            self.starts.append(time.perf_counter())
            values = update(*arguments)
            self.losses.append(values["loss"])
            return values

        trainer.update = timed  # type: ignore[method-assign]

    @property
    def seconds(self) -> list[float]:
        """Seconds from each step's update to the next one's."""
        return [after - before for before, after in zip(self.starts, self.starts[1:], strict=False)]

    def median(self, warm_up: int) -> float:
        return statistics.median(self.seconds[warm_up:])


def train_steps(trainer: Trainer, steps: int, after_step: Callable[[int], None] = lambda step: None) -> None:
    """Train until `steps` steps are done in all, without a checkpoint; goes on from where the trainer is.

    `after_step` hears of each step's end, between two steps.
    """

    check = trainer.writer.check  # called between two steps

    def between_steps() -> None:
        check()
        after_step(trainer.step)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(trainer, "save", return_value=None))
        if trainer.step:
            stack.enter_context(mock.patch.object(trainer, "resume", return_value=True))
        stack.enter_context(mock.patch.object(trainer.writer, "check", between_steps))
        # Asked within a step, before it is counted.
        trainer.train(lambda: trainer.step + 1 >= steps)


def compiler(dry: bool) -> mock._patch:
    """In a dry run Dynamo alone, without the code that Inductor would have built by a C++ compiler."""
    cheap = functools.partial(torch.compile, backend="eager")
    return mock.patch("torch.compile", cheap if dry else torch.compile)
