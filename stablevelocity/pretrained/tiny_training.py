"""Training of the tiny models: an autoencoder on digit scenes, then flow matching on its latents.

Flow matching as for the originals: x_t = (1 - t) z + t eps, target eps - z (docs/paper.md#conventions), t logit-normal,
a tenth of the prompts dropped for guidance. CPU time is counted and stored, so that a budget can be judged.
"""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from stablevelocity.files import write_json
from stablevelocity.pretrained.scenes import TASKS, draw_scene, draw_video_scene, render, render_video
from stablevelocity.pretrained.tiny import TinyFamily, save_tiny
from stablevelocity.pretrained.words import encode_words
from stablevelocity.progress import Progress
from stablevelocity.study.pretrained_settings import TinyTraining

#: Noise on the latents while the autoencoder trains, as a share of their own spread: the decoder must forgive a
#: sampler's small errors. (A fixed size would drown the latents of a fresh encoder, which then never learns.)
LATENT_NOISE = 0.1


@dataclass
class TinyReport:
    """What a training took and reached; stored beside the weights."""

    family: str
    autoencoder_psnr: float = math.nan
    loss: float = math.nan
    autoencoder_cpu_seconds: float = 0.0
    transformer_cpu_seconds: float = 0.0
    parameters: dict[str, int] = field(default_factory=dict)


def training_scenes(family: TinyFamily, count: int, seed: int) -> tuple[Float[Tensor, "..."], list[str]]:
    """Images (N, 3, H, W) or videos (N, 3, T, H, W) in [-1, 1] with their captions."""
    generator = np.random.default_rng([seed, 1])
    pictures, captions = [], []
    for i in range(count):
        if family.frames:
            scene = draw_video_scene(generator)
            pictures.append(np.moveaxis(render_video(scene, generator), -1, 0))
        else:
            scene = draw_scene(TASKS[i % len(TASKS)], generator)
            pictures.append(np.moveaxis(render(scene, generator), -1, 0))
        captions.append(scene.caption)
    return torch.from_numpy(np.stack(pictures)).float() / 127.5 - 1, captions


def train_tiny(family: TinyFamily, budget: TinyTraining, folder: Path, donor: Any = None) -> TinyReport:
    """Train one tiny pipeline and write it to `folder`; `training.json` there says what it took.

    `donor`: the trained autoencoder of the family in `settings.AUTOENCODER_FROM`. Flux takes SD3's as it is; Wan
    starts from Qwen-Image's, which is the same network without time, and trains on.
    """
    torch.manual_seed(budget.seed)
    report = TinyReport(family.name)
    pictures, captions = training_scenes(family, budget.scenes, budget.seed)
    autoencoder = family.autoencoder() if donor is None else family.adopt(donor)
    if donor is None or family.tunes_adopted:
        started = time.process_time()
        train_autoencoder(family, autoencoder, pictures, budget)
        report.autoencoder_cpu_seconds = time.process_time() - started
    latents = _encode_all(family, autoencoder, pictures)
    report.autoencoder_psnr = _psnr(family, autoencoder, pictures[:256])
    mean, std = _channel_statistics(latents)
    family.set_statistics(autoencoder, mean, std)
    latents = _standardise(autoencoder, latents)
    started = time.process_time()
    transformer, report.loss = train_flow(family, latents, captions, budget)
    report.transformer_cpu_seconds = time.process_time() - started
    report.parameters = {
        "transformer": sum(p.numel() for p in transformer.parameters()),
        "autoencoder": sum(p.numel() for p in autoencoder.parameters()),
    }
    save_tiny(family, transformer, autoencoder, folder)
    write_json(folder / "training.json", {**vars(report), "budget": budget.model_dump()})
    return report


def train_autoencoder(family: TinyFamily, autoencoder: Any, pictures: Tensor, budget: TinyTraining) -> None:
    """Squared error through a decoder whose input is slightly noised."""
    autoencoder.train()
    optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=budget.lr, fused=True)
    generator = torch.Generator().manual_seed(budget.seed)
    batches = _batches(len(pictures), budget.autoencoder_batch, generator)
    progress = Progress(f"{family.name}: autoencoder", budget.autoencoder_steps, "steps")
    for step in range(budget.autoencoder_steps):
        _set_rate(optimizer, budget.lr, step, budget.autoencoder_steps)
        x = pictures[next(batches)]
        z = family.encode(autoencoder, x)
        noised = z + LATENT_NOISE * z.detach().std() * torch.randn(z.shape, generator=generator)
        error = (decode_unclamped(family, autoencoder, noised) - x).square().mean()
        progress.update(loss=_update(error, autoencoder, optimizer, step))
    autoencoder.eval()


def decode_unclamped(family: TinyFamily, autoencoder: Any, latents: Tensor) -> Tensor:
    """Pictures before they are cut to [-1, 1].

    The decoders of Qwen-Image and Wan end in a clamp. Scenes are mostly black, so a young decoder soon lies below -1
    everywhere, where a clamp has no gradient, and never draws anything.
    """
    frames: list[Tensor] = []
    handle = autoencoder.decoder.register_forward_hook(lambda module, arguments, output: frames.append(output))
    try:
        shape = family.decode(autoencoder, latents).shape
    finally:
        handle.remove()
    return torch.cat(frames, 2).reshape(shape)


def train_flow(family: TinyFamily, latents: Tensor, captions: list[str], budget: TinyTraining) -> tuple[Any, float]:
    """The averaged (EMA) network and the mean loss of the last tenth of the steps."""
    transformer = family.transformer()
    averaged = copy.deepcopy(transformer).requires_grad_(False)
    optimizer = torch.optim.AdamW(transformer.parameters(), lr=budget.lr, fused=True, weight_decay=0.0)
    generator = torch.Generator().manual_seed(budget.seed + 1)
    batches = _batches(len(latents), budget.batch, generator)
    words = encode_words(captions)
    losses = []
    progress = Progress(f"{family.name}: transformer", budget.steps, "steps")
    for step in range(budget.steps):
        _set_rate(optimizer, budget.lr, step, budget.steps)
        rows = next(batches)
        z, text = family.pack(latents[rows]), words[rows]
        kept = torch.rand(len(rows), generator=generator) >= budget.drop_prompt
        text = text * kept[:, None, None]
        t = shifted(torch.randn(len(rows), generator=generator).sigmoid(), budget.time_shift)
        eps = torch.randn(z.shape, generator=generator)
        at = t.reshape(-1, *[1] * (z.ndim - 1))
        velocity = family.velocity(transformer, (1 - at) * z + at * eps, t, text)
        loss = (velocity - (eps - z)).square().mean()
        losses.append(_update(loss, transformer, optimizer, step))
        progress.update(loss=losses[-1])
        decay = min(budget.ema, (1 + step) / (10 + step))
        for kept_weight, weight in zip(averaged.parameters(), transformer.parameters(), strict=True):
            kept_weight.lerp_(weight.detach(), 1 - decay)
    return averaged.eval(), float(np.mean(losses[-max(1, budget.steps // 10) :]))


def shifted(t: Float[Tensor, " batch"], shift: float) -> Float[Tensor, " batch"]:
    """Times moved towards noise as the samplers' schedules move them, where the prompt decides most."""
    return shift * t / (1 + (shift - 1) * t)


def _update(loss: Tensor, model: Any, optimizer: torch.optim.Optimizer, step: int) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise FloatingPointError(f"loss is {value} at step {step}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return value


def _set_rate(optimizer: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    """Linear over the first twentieth, then half a cosine to zero."""
    warmup = max(1, steps // 20)
    factor = min(1.0, (step + 1) / warmup) * (1 + math.cos(math.pi * step / steps)) / 2
    for group in optimizer.param_groups:
        group["lr"] = rate * factor


def _batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield from torch.randperm(count, generator=generator)[: count // size * size].split(size)


@torch.no_grad()
def _encode_all(family: TinyFamily, autoencoder: Any, pictures: Tensor) -> Tensor:
    return torch.cat([family.encode(autoencoder, chunk) for chunk in pictures.split(256)])


@torch.no_grad()
def _psnr(family: TinyFamily, autoencoder: Any, pictures: Tensor) -> float:
    """In dB over images in [-1, 1], of the pictures' reconstructions."""
    error = family.decode(autoencoder, family.encode(autoencoder, pictures)).clamp(-1, 1) - pictures
    return float(10 * torch.log10(4 / error.square().mean()))


def _channel_statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    axes = [axis for axis in range(latents.ndim) if axis != 1]
    return latents.mean(axes), latents.std(axes)


def _standardise(autoencoder: Any, latents: Tensor) -> Tensor:
    """What the pipeline undoes before decoding."""
    config = autoencoder.config
    if "scaling_factor" in config:
        return (latents - config.shift_factor) * config.scaling_factor
    shape = (1, -1, *[1] * (latents.ndim - 2))
    mean, std = torch.tensor(config.latents_mean).reshape(shape), torch.tensor(config.latents_std).reshape(shape)
    return (latents - mean) / std
