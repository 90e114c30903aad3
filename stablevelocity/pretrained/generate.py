"""Prompts x seeds x one arm: images or videos in the benchmarks' own folder layouts, with their timings.

Every picture's noise is seeded by (seed, prompt, image), so it does not depend on the arm, the batch or the shard.
Batches are the unit of restart: a batch whose record and pictures are there is not made again.
"""

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from stablevelocity.errors import UserError
from stablevelocity.files import read_json, write_json
from stablevelocity.pretrained.families import Arm, Family
from stablevelocity.pretrained.picture_files import picture_paths, save_picture
from stablevelocity.pretrained.prompts import Requirement
from stablevelocity.pretrained.scenes import FRAMES, SIZE
from stablevelocity.progress import Progress

Offload = Literal["none", "model", "sequential"]

#: Of the call that is not timed. The first call of a process also loads kernels and takes its memory.
WARM_UP_STEPS = 2


@dataclass(frozen=True)
class Timing:
    """Wall-clock seconds of one batch.

    `end_to_end` holds text encoding and decoding too; `denoising` is from the first network call to the last step;
    `low_regime` the part of it whose steps start below xi: the paper's "2x" is about that part only.
    """

    end_to_end: float
    denoising: float
    low_regime: float
    steps: int
    low_steps: int
    pictures: int


def seed_of(seed: int, prompt: int, image: int) -> int:
    """63 bits that differ wherever one of the three numbers does."""
    digest = hashlib.sha256(f"{seed}/{prompt}/{image}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generate(
    family: Family,
    pipeline: Any,
    arm: Arm,
    prompts: list[Requirement],
    output: Path,
    *,
    images: int,
    seed: int,
    batch: int,
    shard: int = 0,
    shards: int = 1,
    source: str = "",
) -> list[Timing]:
    """Make `images` pictures per prompt, for the prompts whose index is `shard` modulo `shards`.

    Images go to `<output>/00000/samples/0000.png` (GenEval), videos to `<output>/<category>/0001.mp4` (T2V-CompBench,
    one per prompt; further ones in `<category>-1` and so on) with their exact frames in `<output>/frames`. Records of
    batches lie in `<output>/records`: a batch is kept when its record is of the same pictures, prompts, seed, arm and
    `source`, which names weights and code, and all its files are there. A short call that is not timed goes before the
    first that is. Returns the timings of all batches.
    """
    check_share(prompts, shard, shards)
    wanted = [(p, i) for p in range(shard, len(prompts), shards) for i in range(images)]
    stock = pipeline.scheduler
    timings, warm_up = [], [WARM_UP_STEPS]
    progress = Progress(f"{family.name} {output.name}", len(wanted), "pictures")
    try:
        for number, start in enumerate(range(0, len(wanted), batch)):
            chosen = wanted[start : start + batch]
            texts = [prompts[p]["prompt"] for p, _ in chosen]
            # Lists, as they come back from the record.
            pairs = [list(pair) for pair in chosen]
            identity = {"pictures": pairs, "prompts": texts, "seed": seed, "arm": vars(arm), "source": source}
            record = output / "records" / f"{shard:03d}-{number:05d}.json"
            done = read_json(record) if record.exists() else None
            files = [path for p, i in chosen for path in picture_paths(family, output, p, i, prompts[p])]
            if done is None or done["identity"] != identity or not all(path.exists() for path in files):
                seeds = [seed_of(seed, p, i) for p, i in chosen]
                for steps in (*warm_up, arm.steps):
                    pipeline.scheduler = arm.scheduler(stock.config)
                    pictures, timing = sample(family, pipeline, texts, seeds, steps, arm.xi)
                warm_up = []
                for (p, i), picture in zip(chosen, pictures, strict=True):
                    save_picture(family, output, p, i, prompts[p], picture)
                done = {"identity": identity, "timing": vars(timing)}
                write_json(record, done)
            timings.append(Timing(**done["timing"]))
            progress.update(len(chosen))
    finally:
        pipeline.scheduler = stock
    return timings


def check_share(prompts: list[Requirement], shard: int, shards: int) -> None:
    """Refuse a share of the prompts that holds none."""
    if not 0 <= shard < shards <= len(prompts):
        raise UserError(f"shard {shard} of {shards}: expected one of at most {len(prompts)}, the number of prompts")


def sample(
    family: Family, pipeline: Any, prompts: list[str], seeds: list[int], steps: int, xi: float
) -> tuple[np.ndarray, Timing]:
    """One call of the pipeline: uint8 pictures (B, [T,] H, W, 3) and its timing.

    `steps` is what the pipeline is asked for; its scheduler may thin them.
    """
    has_encoders = pipeline.text_encoder is not None
    height, width = family.size if has_encoders else (SIZE, SIZE)
    shape: dict[str, Any] = {"height": height, "width": width}
    if family.frames is not None:
        shape["num_frames"] = family.frames if has_encoders else FRAMES
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    # The pipelines hand their generators to the first noise only. The fresh noise of a noise_factor goes on from them,
    # so that it is each picture's own, whatever shares its batch.
    if hasattr(pipeline.scheduler, "generator"):
        pipeline.scheduler.generator = generators
    torch.manual_seed(seeds[0])
    with _Clock(pipeline) as clock:
        result = pipeline(
            **family.text_arguments(prompts, has_encoders),
            **(family.guidance if has_encoders else family.tiny_guidance),
            **shape,
            num_inference_steps=steps,
            generator=generators,
            output_type="np",
            callback_on_step_end=clock.after_step,
        )
    pictures = np.asarray(result.frames if family.is_video else result.images)
    low_steps = np.count_nonzero(pipeline.scheduler.sigmas[:-1].cpu().numpy() < np.float32(xi))
    timing = clock.timing(int(low_steps), len(seeds))
    return (pictures * 255).round().clip(0, 255).astype(np.uint8), timing


class _Clock:
    """Times a pipeline's call: its ends, its first network call, and each step's end."""

    def __init__(self, pipeline: Any):
        self._device = pipeline._execution_device
        networks = (pipeline.transformer, getattr(pipeline, "transformer_2", None))
        self._hooks = [n.register_forward_pre_hook(self._before_network) for n in networks if n is not None]
        self._first: float | None = None
        self._step_ends: list[float] = []

    def __enter__(self) -> "_Clock":
        self._started = self._now()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = self._now()
        for hook in self._hooks:
            hook.remove()

    def after_step(self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self._step_ends.append(self._now())
        return {}

    def timing(self, low_steps: int, pictures: int) -> Timing:
        assert self._first is not None
        marks = [self._first, *self._step_ends]
        low = marks[-1] - marks[-1 - low_steps]
        return Timing(self._ended - self._started, marks[-1] - marks[0], low, len(marks) - 1, low_steps, pictures)

    def _before_network(self, *arguments: object) -> None:
        self._first = self._first or self._now()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def total(timings: list[Timing]) -> Timing:
    """The sum over batches; steps are those of one picture."""
    summed = ("end_to_end", "denoising", "low_regime", "pictures")
    return replace(timings[0], **{name: sum(getattr(timing, name) for timing in timings) for name in summed})


def prepare(pipeline: Any, device: str, offload: Offload) -> Any:
    """Put a pipeline on a device, whole or with its parts moved there when they are needed.

    `model`: one part at a time; `sequential`: one layer at a time, slow and small. Raises UserError for a device
    that is not here, and for offloading without a GPU.
    """
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    pipeline.set_progress_bar_config(disable=True)
    if offload == "none":
        return pipeline.to(device)
    if torch.device(device).type == "cpu":
        raise UserError(f"offload {offload!r} needs an accelerator, got device {device!r}")
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_sequential_cpu_offload(device=device)
    return pipeline
