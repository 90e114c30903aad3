"""How fast training is, and where a step's time goes.

python -m benchmarks.trainer_step            arms of the digits study, on random data of its shape
python -m benchmarks.trainer_step --model SiT-XL/2 --batch 256 --precision bf16 --peak 989 --compile
                                             ImageNet-shaped data, with the share of the peak (MFU)

Sections are timed on the training thread, by its own CPU time (on a device: wall time, synchronised after each). The
reader's thread stands apart: it runs beside the step.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stablevelocity.cli.plan import TRAINING_FORWARDS
from stablevelocity.data.shards import write_manifest, write_shard
from stablevelocity.study import Run, Study, load_study
from stablevelocity.training.trainer import Trainer

NETWORK = ("network forward", "backward")


class Clock:
    """Seconds by section, of functions wrapped with `watch`; a section inside another is taken out of it."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.thread_time()

    def watch(self, owner: Any, name: str, section: str) -> None:
        function: Callable = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            began = self.now()
            self._inner.append(0.0)
            result = function(*arguments, **named)
            took = self.now() - began
            self.seconds[section] += took - self._inner.pop()
            if self._inner:
                self._inner[-1] += took
            return result

        setattr(owner, name, timed)


def write_data(
    folder: Path, *, images: int, classes: int, shape: tuple[int, int, int], tokens: int, width: int
) -> None:
    """Random latents and features of some shape, in the layout of the data stages."""
    rng = np.random.default_rng(0)

    def half(*size: int) -> np.ndarray:
        return rng.standard_normal((images, *size), dtype=np.float32).astype(np.float16)

    latents = {"mean": half(*shape), "std": np.abs(half(*shape)), "labels": np.arange(images) % classes}
    info = {"scale": 1.0, "num_classes": classes, "autoencoder": "none", "identity": "none"}
    write_shard(folder / "latents" / "0.safetensors", latents)
    write_manifest(folder / "latents" / "train.json", [folder / "latents" / "0.safetensors"], **info)
    write_shard(folder / "features" / "0.safetensors", {"tokens": half(tokens, width), "class_token": half(width)})
    write_manifest(folder / "features" / "train.json", [folder / "features" / "0.safetensors"], encoder="none")


def measure(run: Run, data: Path, steps: int, warm_up: int) -> tuple[float, dict[str, float], float]:
    """(steps a second, share of the step by section, images a second) of `steps` steps after `warm_up`."""
    with tempfile.TemporaryDirectory() as folder:
        features = data / "features" / "train.json" if run.alignment or run.class_token else None
        job = Trainer(run, data / "latents" / "train.json", features, Path(folder))
        clock = Clock(job.device)
        for owner, name, section in (
            (job.batches, "make", "batch: noising, CFM target, tokens"),
            (job, "losses", "losses"),
            (job, "network", "network forward"),
            (job.accelerator, "backward", "backward"),
            (nn.utils, "clip_grad_norm_", "clipping"),
            (job.optimizer, "step", "optimizer"),
            (job, "_update_ema", "moving average"),
            (job.record, "add", "metrics"),
        ):
            if name != "network":
                clock.watch(owner, name, section)
        if job.batches.bank is not None:
            clock.watch(job.batches.bank, "insert", "bank: insertion and picking")
            clock.watch(job.batches.bank, "pick", "bank: insertion and picking")
            clock.watch(job.batches.bank, "target", "StableVM target")
        # A module cannot be replaced by a function; its forward can.
        clock.watch(job.network, "forward", "network forward")
        began = {"wall": 0.0, "here": 0.0}
        update = job.update

        def counted(*arguments: Any) -> Any:
            if job.step == warm_up:
                clock.seconds.clear()
                began.update(wall=time.perf_counter(), here=clock.now())
            return update(*arguments)

        job.update = counted  # type: ignore[method-assign]
        clip = nn.utils.clip_grad_norm_
        job.train()
        nn.utils.clip_grad_norm_ = clip
        here, wall = clock.now() - began["here"], time.perf_counter() - began["wall"]
    shares = {section: seconds / here for section, seconds in clock.seconds.items()}
    shares["the rest of the loop"] = 1 - sum(shares.values())
    rate = steps / wall
    return rate, shares, rate * run.training.batch


def training_flops(run: Run, data: Path) -> float:
    """Operations of training on one image: three forward passes of the run's network."""
    from stablevelocity.data.latents import Latents
    from stablevelocity.models.networks import build_network

    latents = Latents(data / "latents" / "train.json")
    with torch.device("meta"):
        network = build_network(run, latents.shape, latents.num_classes, 768 if run.alignment else None)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.empty(1, *latents.shape), torch.empty(1), torch.zeros(1, dtype=torch.long))
    return TRAINING_FORWARDS * counter.get_total_flops()


def short(run: Run, steps: int, **training: Any) -> Run:
    settings = run.training.model_copy(
        update={"steps": steps, "milestones": [], "checkpoint_every": steps, "log_every": 25, **training}
    )
    return run.model_copy(update={"training": settings})


def report(title: str, rate: float, shares: dict[str, float]) -> None:
    print(f"\n{title}: {rate:.3g} steps/s")
    for section, share in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"  {section:36} {share:6.1%}{'' if section in NETWORK or share < 0.05 else '   above 5 %'}")


def digits(steps: int, warm_up: int) -> list[tuple[str, float, dict[str, float]]]:
    """(arm, steps a second, share of the step by section) of every arm of the digits study."""
    study = load_study(Path(__file__).parent.parent / "config" / "digits-arms.yaml")
    torch.set_num_threads(1)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), images=1438, classes=10, shape=(4, 8, 8), tokens=16, width=64)
        for arm in study.arms:
            run = short(first_run(study, arm), steps + warm_up)
            rate, shares, _ = measure(run, Path(folder), steps, warm_up)
            results.append((f"{study.arms[arm].label}, batch {run.training.batch}", rate, shares))
    return results


def imagenet(arguments: argparse.Namespace) -> None:
    study = load_study(Path(__file__).parent.parent / "config" / "imagenet256.yaml")
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), images=2560, classes=10, shape=(4, 32, 32), tokens=256, width=768)
        for arm in ("sit", "repa", "stablevm", "stablevm-va-repa"):
            run = first_run(study, arm)
            model = run.training.model.model_copy(update={"name": arguments.model})
            choices = {"model": model, "batch": arguments.batch, "precision": arguments.precision}
            run = short(run, arguments.steps + arguments.warm_up, compile=arguments.compile, **choices)
            rate, shares, images = measure(run, Path(folder), arguments.steps, arguments.warm_up)
            used = images * training_flops(run, Path(folder))
            report(f"{study.arms[arm].label}, {arguments.model}, batch {arguments.batch}", rate, shares)
            print(f"  {images:.4g} images/s, {used / 1e12:.4g} TFLOP/s, MFU {used / 1e12 / arguments.peak:.1%}")


def first_run(study: Study, arm: str) -> Run:
    return next(run for run in study.runs().values() if run.arm == arm)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Steps per second and where the time goes.")
    parser.add_argument("--model", help="SiT-XL/2 ...: ImageNet shapes; without it, the digits study")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="bf16")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--peak", type=float, default=989.0, help="TFLOP/s of the device at that precision")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=20)
    given = parser.parse_args()
    if given.model:
        imagenet(given)
    else:
        for line in digits(given.steps, given.warm_up):
            report(*line)
