"""What a step of training costs the host beside the network: this checkout against an older one, by turns.

python -m benchmarks.host_side --before CHECKOUT     writes the section of benchmarks/RESULTS.md

ImageNet's shapes: batch 256, latents 4x32x32, 1,000 classes, 256 tokens of 768 features read from disk. The network is
not run: in its place the training thread sleeps for as long as a device would be busy, which is when reader threads
may read. What a device would compute of a batch (noising, targets) is computed here by the training thread, while the
readers use the other core and the same memory.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import machine, replace_section
from benchmarks.trainer_step import Clock, first_run, short, write_data
from stablevelocity.study import load_study
from stablevelocity.training.trainer import Trainer

RESULTS = Path(__file__).parent / "RESULTS.md"
HEADING = "## Host side of a step"
STEP = 0.41  # seconds that the device is busy: SiT-XL/2 at batch 256 on one GPU
IMAGES, STEPS, WARM_UP = 5120, 20, 3  # one epoch: every row of the features is read once
ROWS = {
    "rest": "the rest of the loop: waiting for the readers, freeing memory",
    "tokens": "the encoder's tokens on the training thread",
    "record": "metrics",
    "average": "moving average of 28 blocks (tiny ones: calls, not bandwidth)",
    "arithmetic": "noising, targets, bank",
}


class WallClock(Clock):
    """Wall time, on the device as well: what counts is for how long the training thread is held up."""

    def now(self) -> float:
        return time.perf_counter()


def measure(arm: str, data: Path) -> dict[str, float]:
    """Milliseconds of the training thread by row of the table (medians of a run); `checkpoint`: seconds per GB."""
    study = load_study(Path(__file__).parent.parent / "config" / "imagenet256.yaml")
    run = first_run(study, arm)
    sizes = {"name": None, "depth": 28, "width": 16, "heads": 2, "patch": 2, "projector_width": 16}
    model = run.training.model.model_copy(update=sizes)
    run = short(run, STEPS, model=model, compile=False, precision="fp32", threads=1, checkpoint_every=STEPS)
    if run.stablevm:
        bank = run.stablevm.bank.model_copy(update={"capacity": 32, "dtype": "float32"})  # 1 GB with the null ring
        run = run.model_copy(update={"stablevm": run.stablevm.model_copy(update={"bank": bank})})
    with tempfile.TemporaryDirectory(dir=data) as folder:
        job = Trainer(run, data / "latents" / "train.json", data / "features" / "train.json", Path(folder))
        clock, steps = WallClock(job.device), defaultdict[str, list[float]](list)
        clock.watch(job.batches, "make", "arithmetic")
        clock.watch(job.features, "tokens", "tokens")
        clock.watch(job.record, "add", "record")
        clock.watch(job, "_update_ema", "average")
        # A step begins when `make` of the one before has returned.
        began = time.perf_counter()

        def update(batch: Any, weight_sum: float) -> dict[str, torch.Tensor]:
            nonlocal began
            now = time.perf_counter()
            if job.step:
                # All but the network's time, less what has a row.
                clock.seconds["rest"] = now - began - sum(clock.seconds.values())
                for name, seconds in clock.seconds.items():
                    steps[name].append(1000 * seconds)
            clock.seconds.clear()
            time.sleep(STEP)
            began = time.perf_counter()
            job._update_ema()
            per_sample = torch.ones(len(batch.t))
            return {
                "loss": torch.ones(1),
                "velocity": per_sample,
                "alignment": per_sample,
                "grad_norm": torch.tensor(1.0),
            }

        job.update = update  # type: ignore[method-assign]
        job.export = lambda: None  # type: ignore[method-assign]
        saves, save = [], job.save

        def timed_save() -> None:
            before = time.perf_counter()
            save()
            saves.append(time.perf_counter() - before)

        job.save = timed_save  # type: ignore[method-assign]
        job.train()
        # Once more, into memory that is there: what every save but the first costs.
        job.save()
        size = max(file.stat().st_size for file in Path(folder).glob("checkpoints/*/step-*")) / 1e9
        writer = getattr(job, "writer", None)
        if writer is not None:
            writer.wait()
    return {
        **{name: statistics.median(values[WARM_UP:]) for name, values in steps.items()},
        "checkpoint": saves[-1] / size,
    }


def child(checkout: Path, data: Path, arm: str) -> dict[str, float]:
    """`measure` with the code of a checkout, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--child", arm, str(data)]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def section(before: Path, rounds: int) -> str:
    """The section of RESULTS.md."""
    here = Path(__file__).resolve().parent.parent
    arms = ("repa", "stablevm-va-repa")
    timings: dict[Any, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), images=IMAGES, classes=1000, shape=(4, 32, 32), tokens=256, width=768)
        for number in range(rounds):
            for checkout in (before, here) if number % 2 == 0 else (here, before):
                for arm in arms:
                    result = child(checkout, Path(folder), arm)
                    print(checkout.name, arm, {name: round(value, 2) for name, value in result.items()}, flush=True)
                    timings[checkout == here, arm].append(result)

    def pair(arm: str, row: str) -> str:
        values = [statistics.median(one[row] for one in timings[now, arm]) for now in (False, True)]
        return " / ".join(f"{value:.2f}" for value in values)

    ask = ["git", "-C", str(before), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(ask, capture_output=True, check=True, text=True).stdout.strip()
    lines = [
        HEADING,
        "",
        f"Made by `python -m benchmarks.host_side --before CHECKOUT`, {rounds} rounds by turns. {machine()}.",
        f"Milliseconds of the training thread per step, before (commit {commit}) / after; batch 256, latents 4x32x32,",
        "1,000 classes, 256 tokens of 768 features from disk; medians of the rounds' medians. In place of the",
        f"network the thread sleeps {1000 * STEP:.0f} ms a step. The last row is a device's work where there is one; "
        "here readers share cores and memory with it. Waits for a device do not show on a CPU.",
        "",
        "| of the training thread | REPA | StableVM + VA-REPA |",
        "| --- | --- | --- |",
    ]
    for row, title in ROWS.items():
        lines.append(f"| {title} | {' | '.join(pair(arm, row) for arm in arms)} |")
    held_up = pair("stablevm-va-repa", "checkpoint")
    lines += ["", f"A checkpoint (1 GB, not the first of its run) holds it up for {held_up} s per GB, before / after."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Host side of a training step, before and after.")
    parser.add_argument("--before", type=Path, help="checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(given.child[0], Path(given.child[1]))))
    else:
        text = section(given.before.resolve(), given.rounds)
        replace_section(RESULTS, HEADING, text)
        print(text)
