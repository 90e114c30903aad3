"""Data for `tiny_run`, and ways to start and kill it (used by the tests)."""

import csv
import os
import resource
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from stablevelocity.data.shards import write_manifest, write_shard
from stablevelocity.errors import UserError
from stablevelocity.study import Run

MEASURED = ("images_per_s", "memory_mb")  # of the machine, not of the run
IMAGES, CLASSES, SHAPE, TOKENS, WIDTH = 96, 3, (2, 4, 4), 4, 6


def write_data(folder: Path) -> None:
    """Latents and features of random "images" in two shards each; class k has mean k."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, IMAGES)
    mean = rng.normal(size=(IMAGES, *SHAPE)) + labels[:, None, None, None]
    arrays: dict[str, dict[str, np.ndarray]] = {
        "latents": {
            "mean": mean.astype(np.float16),
            "std": np.full((IMAGES, *SHAPE), 0.1, np.float16),
            "labels": labels.astype(np.int64),
        },
        "features": {
            "tokens": rng.normal(size=(IMAGES, TOKENS, WIDTH)).astype(np.float16),
            "class_token": rng.normal(size=(IMAGES, WIDTH)).astype(np.float16),
        },
    }
    info: dict[str, dict[str, Any]] = {
        "latents": {"scale": 0.5, "num_classes": CLASSES, "autoencoder": "none", "identity": "none"},
        "features": {"encoder": "none"},
    }
    for kind, named in arrays.items():
        shards = []
        for k, part in enumerate((slice(0, 40), slice(40, IMAGES))):
            shards.append(folder / kind / f"train-{k:05d}.safetensors")
            write_shard(shards[-1], {name: array[part] for name, array in named.items()})
        write_manifest(folder / kind / "train.json", shards, **info[kind])


def trainer(run: Run, data: Path, folder: Path):
    from stablevelocity.training.trainer import Trainer

    features = data / "features" / "train.json" if run.alignment or run.class_token else None
    return Trainer(run, data / "latents" / "train.json", features, folder)


# --- what a run leaves -----------------------------------------------------------------------------------


def weights(folder: Path, step: int = 24) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights" / f"step-{step:08d}.safetensors")


def metrics(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in MEASURED} for row in csv.DictReader(file)]


def assert_same_run(folder: Path, unbroken: Path) -> None:
    expected, found = weights(unbroken), weights(folder)
    assert set(found) == set(expected)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert metrics(folder) == metrics(unbroken)


# --- in processes of their own ---------------------------------------------------------------------------


def train_whole(run: Run, data: Path, folder: Path) -> None:
    trainer(run, data, folder).train()


def train_and_die_in_save(run: Run, data: Path, folder: Path, moment: int, counted: Path | None = None) -> None:
    """SIGKILL this process at call number `moment` (Python or C) inside the saves of checkpoints.

    The calls are those of the training thread while it copies the state and of the thread that writes it, which goes
    on beside the next steps. With `counted`, die never and write the number of calls in one save to that file.
    """
    job = trainer(run, data, folder)
    save, seen = job.save, 0

    def watch(frame: Any, event: str, argument: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == moment and counted is None:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched() -> None:
        threading.setprofile(watch)  # for the thread that the first save starts
        sys.setprofile(watch)
        save()
        sys.setprofile(None)
        if counted is not None:
            job.writer.wait()
            counted.write_text(str(seen))
            os._exit(0)

    job.save = watched
    job.train()


def train_and_die_in_write(run: Run, data: Path, folder: Path, size: int) -> None:
    """The kernel kills this process when a file of its own grows beyond `size` bytes: in the midst of a write."""
    job = trainer(run, data, folder)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    job.train()


def train_with_little_disk(run: Run, data: Path, folder: Path, size: int) -> None:
    """No file may grow beyond `size` bytes: writing fails as on a full disk. What `train` raised goes to error.txt."""
    job = trainer(run, data, folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # Python ignores the signal that comes with it
    try:
        job.train()
    except UserError as error:
        (folder / "error.txt").write_text(f"{job.step} {error}")


def train_broken_on_the_last_rank(run: Run, data: Path, folder: Path, rank: int, world: int, port: int) -> None:
    """The loss of the last process is infinite in its third step; what each process raised goes to error-<rank>.txt."""
    join_group(rank, world, port)
    job = trainer(run, data, folder)
    losses = job.losses

    def broken(*arguments: Any) -> dict[str, torch.Tensor]:
        values = losses(*arguments)
        if job.step == 2 and rank == world - 1:
            values["loss"] = values["loss"] + torch.inf
        return values

    job.losses = broken
    try:
        job.train()
    except UserError as error:
        (folder / f"error-{rank}.txt").write_text(str(error))
        save_file({name: value.clone() for name, value in job.model.state_dict().items()}, folder / f"{rank}.st")
    torch.distributed.destroy_process_group()


def join_group(rank: int, world: int, port: int) -> None:
    """What a launcher tells process `rank` of a gloo group."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }


def train_as_rank(run: Run, data: Path, folder: Path, rank: int, world: int, port: int) -> None:
    """One process of a gloo group; writes what it was given at some steps, and its bank at the end."""
    if world > 1:
        join_group(rank, world, port)
    job = trainer(run, data, folder)
    assert (job.rank, job.world) == (rank, world)
    make, kept = job.batches.make, {}

    def recorded(read):
        batch = make(read)
        if read.step % 20 in (0, 1):
            for name in ("x_t", "t", "labels", "tokens", "weight", "class_token_t", "target"):
                kept[f"{read.step}.{name}"] = getattr(batch, name).clone()
        return batch

    job.batches.make = recorded
    job.train()
    kept |= {name: value.clone() for name, value in job.batches.state_dict().items()}
    save_file(kept, folder / f"seen-{rank}-of-{world}.safetensors")
    if world > 1:
        torch.distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
