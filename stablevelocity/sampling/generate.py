"""Images in fixed blocks, the same on any number of processes, jobs or devices.

Image i belongs to block i // 64. All that is random about a block (labels, starting noise, noise of the
solver) comes from generators seeded by (seed, block) on the CPU, and a block always runs whole, so the same images
come out however blocks are assigned to processes and jobs. On the CPU, generation runs on one thread per
process: with more, matrix products may add in another order.
"""

import hashlib
import json
import math
import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.multiprocessing
from jaxtyping import Float64, Int, Int64, UInt8
from torch import Tensor

from stablevelocity.data.shards import is_done, read_shard, write_shard
from stablevelocity.errors import UserError
from stablevelocity.interpolants import Interpolant, LinearPath
from stablevelocity.models.autoencoders import AnyAutoencoder, decode_latents
from stablevelocity.models.sit import SiT
from stablevelocity.progress import Progress
from stablevelocity.provenance import code_hash
from stablevelocity.randomness import generator
from stablevelocity.sampling.guidance import guided_velocity
from stablevelocity.sampling.run_sampler import solve
from stablevelocity.study.settings import Sampler

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Block(NamedTuple):
    """The images of one block with the labels they were asked for."""

    images: UInt8[Tensor, "block height width 3"]
    labels: Int64[Tensor, " block"]


@dataclass(frozen=True)
class BlockSampler:
    """All that a block of images depends on. `block_sampler.sample(7)` is the same wherever it runs.

    `scale` is the latent scale the network was trained at; `precision` that of the network (autocast), while
    the state of the solver is float64. A float32 state costs nothing that FID can see on digits
    (docs/evaluation.md), and a float64 state nothing in time.
    """

    model: SiT
    autoencoder: AnyAutoencoder
    scale: float
    sampler: Sampler
    seed: int = 0
    block: int = 64
    precision: str = "fp32"
    device: str = "cpu"
    path: Interpolant = field(default_factory=LinearPath)

    def identity(self, weights: str) -> str:
        """Names the images: hash of every setting, of the code that draws, and of `weights`, the caller's name for
        model and decoder.
        """
        settings = [self.sampler.model_dump(mode="json"), self.scale, self.seed, self.block, self.precision]
        code = code_hash("stablevelocity.sampling.generate")
        text = json.dumps([*settings, type(self.path).__name__, weights, code])
        return hashlib.sha256(text.encode()).hexdigest()

    def labels(self, block: int) -> Int64[Tensor, " block"]:
        """Uniform random labels; balanced: image i of all gets class i modulo the number of classes; the null class."""
        if self.sampler.labels == "none":
            return torch.full((self.block,), self.model.num_classes)
        if self.sampler.labels == "balanced":
            return torch.arange(block * self.block, (block + 1) * self.block) % self.model.num_classes
        draws = generator(self.seed, block, "sample labels")
        return torch.randint(self.model.num_classes, (self.block,), generator=draws)

    @torch.no_grad()
    def latents(self, block: int) -> tuple[Float64[Tensor, "block c h w"], Int64[Tensor, " block"]]:
        """Scaled latents at t = 0, and their labels, on the CPU."""
        labels = self.labels(block)
        shape = (self.block, self.model.in_channels, self.model.input_size, self.model.input_size)
        noise = torch.randn(shape, generator=generator(self.seed, block, "sample noise")).to(self.device)
        draws = generator(self.seed, block, "sample solver")
        state = noise
        if self.model.class_dim is not None:
            token = torch.randn(self.block, self.model.class_dim, generator=generator(self.seed, block, "sample token"))
            state = torch.cat([noise.flatten(1), token.to(self.device)], dim=1)
        velocity = guided_velocity(
            self._network(shape[1:]),
            labels.to(self.device),
            null_class=self.model.num_classes,
            scale=self.sampler.guidance,
            interval=self.sampler.guidance_interval,
        )
        end = solve(velocity, state, self.sampler, path=self.path, draws=draws)
        if self.model.class_dim is not None:
            end = end[:, : math.prod(shape[1:])].reshape(shape)
        if not bool(torch.isfinite(end).all()):
            bad = int((~torch.isfinite(end)).flatten(1).any(dim=1).sum())
            raise UserError(
                f"sampling: {bad} of {self.block} latents of block {block} are NaN or infinite "
                f"(precision {self.precision}, guidance {self.sampler.guidance:g})"
            )
        return end.cpu(), labels

    @torch.no_grad()
    def sample(self, block: int) -> Block:
        """Generate and decode one block."""
        with _one_thread(self.device):
            latents, labels = self.latents(block)
            images = decode_latents(self.autoencoder, latents.float(), self.scale)
        return Block(images.cpu(), labels)

    def to(self, device: str) -> "BlockSampler":
        """This sampler with its networks moved to a device."""
        self.model.to(device)  # in place, as torch modules do
        self.autoencoder.to(device)
        return replace(self, device=device)

    def _network(self, shape: tuple[int, ...]):
        """model(x, t, y) for guidance; with a class token (REG) the state is [latent, token] in one vector."""

        def latent_velocity(x: Tensor, t: Tensor, y: Int[Tensor, " b"]) -> Tensor:
            with self._autocast():
                return self.model.velocity(x, t.float(), y)

        def joint_velocity(x: Tensor, t: Tensor, y: Int[Tensor, " b"]) -> Tensor:
            size = math.prod(shape)
            with self._autocast():
                latents = x[:, :size].reshape(len(x), *shape)
                latent, token = self.model.joint_velocity(latents, x[:, size:], t.float(), y)
            return torch.cat([latent.flatten(1), token], dim=1)

        return latent_velocity if self.model.class_dim is None else joint_velocity

    def _autocast(self) -> torch.autocast:
        dtype = PRECISIONS[self.precision]
        return torch.autocast(torch.device(self.device).type, dtype=dtype, enabled=dtype != torch.float32)


def shard_blocks(images: int, block: int, shard: int, shards: int) -> range:
    """Blocks of one of `shards` jobs: consecutive, so that shards in order hold the images in order."""
    blocks = -(-images // block)
    if shards > blocks:
        raise UserError(f"{shards} shards for {images} images in blocks of {block}: expected at most {blocks} shards")
    return range(shard * blocks // shards, (shard + 1) * blocks // shards)


def generate_shard(
    block_sampler: BlockSampler,
    output: Path | str,
    *,
    images: int,
    shard: int = 0,
    shards: int = 1,
    processes: int = 1,
    weights: str = "",
) -> None:
    """Make the images of one shard of `images` in all, and write them (`images`, `labels`) to `output`.

    Every block is kept in `<output>.blocks/` as soon as it is done, so a job that was killed goes on where it
    stopped; the folder goes when the shard is whole. Blocks of other settings, code or `weights` are made again.
    """
    output = Path(output)
    folder = output.with_name(output.name + ".blocks")
    numbers = shard_blocks(images, block_sampler.block, shard, shards)
    write_blocks(block_sampler, numbers, folder, processes=processes, weights=weights)
    parts = [read_shard(_block_file(folder, number)) for number in numbers]
    last = min(images, numbers.stop * block_sampler.block) - numbers.start * block_sampler.block
    write_shard(
        output,
        {name: np.concatenate([part[name] for part in parts])[:last] for name in ("images", "labels")},
        {"identity": block_sampler.identity(weights), "sampler": block_sampler.sampler.model_dump_json()},
    )
    shutil.rmtree(folder)


def write_blocks(
    block_sampler: BlockSampler, numbers: Sequence[int], folder: Path, *, processes: int = 1, weights: str = ""
) -> None:
    """Write the blocks that `folder` does not hold yet, assigned round-robin to `processes`."""
    info = {"identity": block_sampler.identity(weights)}
    missing = [number for number in numbers if not is_done(_block_file(folder, number), info)]
    processes = min(processes, len(missing))
    if processes <= 1:
        _work(0, block_sampler, missing, folder, info, 1)
        return
    device = "cpu" if block_sampler.device == "cpu" else "cuda"
    block_sampler = replace(block_sampler.to("cpu"), device=device)
    # A server that has imported this module forks the workers: torch is imported once, and no fork copies the
    # threads or the CUDA state of this process.
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    try:
        torch.multiprocessing.start_processes(
            _work, (block_sampler, missing, folder, info, processes), nprocs=processes, start_method="forkserver"
        )
    except torch.multiprocessing.ProcessRaisedException as error:
        name = f"{UserError.__module__}.{UserError.__qualname__}: "
        last = str(error).strip().splitlines()[-1]
        if not last.startswith(name):
            raise
        raise UserError(last.removeprefix(name)) from None


def _work(
    rank: int, block_sampler: BlockSampler, missing: list[int], folder: Path, info: dict[str, str], processes: int
) -> None:
    if processes > 1 and torch.device(block_sampler.device).type == "cuda":
        block_sampler = block_sampler.to(f"cuda:{rank % torch.cuda.device_count()}")
    mine = missing[rank::processes]
    progress = Progress(f"sample {folder.parent.name}", len(mine) * block_sampler.block, "images")
    for number in mine:
        block = block_sampler.sample(number)
        arrays = {"images": block.images.numpy(), "labels": block.labels.numpy()}
        write_shard(_block_file(folder, number), arrays, info)
        progress.update(block_sampler.block)


def _block_file(folder: Path, number: int) -> Path:
    return folder / f"block-{number:06d}.safetensors"


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """One CPU thread for what runs inside, if it runs on the CPU."""
    threads = torch.get_num_threads()
    if torch.device(device).type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
