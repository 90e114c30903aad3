"""Training of the tiny models: an autoencoder on digit scenes, then flow matching on its latents.

Flow matching as for the originals: x_t = (1 - t) z + t eps, target eps - z (docs/paper.md#conventions), t logit-normal,
a tenth of the prompts dropped for guidance.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stablevelocity.files import write_json
from stablevelocity.models.pixels import psnr
from stablevelocity.models.train_small import train_small
from stablevelocity.pretrained.scenes import TASKS, draw_scene, draw_video_scene, render, render_video
from stablevelocity.pretrained.tiny import TinyFamily
from stablevelocity.pretrained.words import encode_words
from stablevelocity.study.pretrained_settings import TinyTraining

#: Noise on the latents while the autoencoder trains, as a share of their own spread: the decoder must forgive a
#: sampler's small errors. (A fixed size would drown the latents of a fresh encoder, which then never learns.)
LATENT_NOISE = 0.1


def training_scenes(family: TinyFamily, count: int, seed: int) -> tuple[Float[Tensor, "..."], list[str]]:
    """Images (N, 3, H, W) or videos (N, 3, T, H, W) in [-1, 1] with their captions."""
    generator = np.random.default_rng([seed, 1])
    pictures, captions = [], []
    for i in range(count):
        scene = draw_video_scene(generator) if family.frames else draw_scene(TASKS[i % len(TASKS)], generator)
        pixels = render_video(scene, generator) if family.frames else render(scene, generator)
        pictures.append(np.moveaxis(pixels, -1, 0))
        captions.append(scene.caption)
    return torch.from_numpy(np.stack(pictures)).float() / 127.5 - 1, captions


def train_tiny(family: TinyFamily, budget: TinyTraining, folder: Path, trained: Any = None) -> dict[str, Any]:
    """Train one tiny pipeline and write it to `folder`; return what it reached, as in `training.json` there.

    `trained`: the autoencoder of the family in `settings.AUTOENCODER_FROM`. Flux takes SD3's as it is; Wan starts from
    Qwen-Image's, which is the same network without time, and trains on.
    """
    torch.manual_seed(budget.seed)
    pictures, captions = training_scenes(family, budget.scenes, budget.seed)
    autoencoder = family.autoencoder() if trained is None else family.autoencoder_from(trained)
    if trained is None or family.trains_further:
        train_autoencoder(family, autoencoder, pictures, budget)
    with torch.no_grad():
        latents = torch.cat([family.encode(autoencoder, chunk) for chunk in pictures.split(256)])
        some = pictures[:256]
        error = family.decode(autoencoder, family.encode(autoencoder, some)).clamp(-1, 1) - some
    axes = [axis for axis in range(latents.ndim) if axis != 1]
    family.set_statistics(autoencoder, latents.mean(axes), latents.std(axes))
    transformer, loss = train_flow(family, standardise(autoencoder, latents), captions, budget)
    parts = {"transformer": transformer, "autoencoder": autoencoder}
    report = {
        "family": family.name,
        "autoencoder_psnr": float(psnr(error.square().mean(), 2.0)),
        "loss": loss,
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
    }
    family.save(transformer, autoencoder, folder)
    write_json(folder / "training.json", {**report, "budget": budget.model_dump()})
    return report


def train_autoencoder(family: TinyFamily, autoencoder: Any, pictures: Tensor, budget: TinyTraining) -> None:
    """Squared error through a decoder whose input is slightly noised."""
    optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=budget.lr, fused=True)
    generator = torch.Generator().manual_seed(budget.seed)
    batches = _batches(len(pictures), budget.autoencoder_batch, generator)

    def loss() -> Tensor:
        x = pictures[next(batches)]
        z = family.encode(autoencoder, x)
        noised = z + LATENT_NOISE * z.detach().std() * torch.randn(z.shape, generator=generator)
        return (decode_unclamped(family, autoencoder, noised) - x).square().mean()

    steps = budget.autoencoder_steps
    train_small(f"{family.name}: autoencoder", autoencoder, loss, optimizer, _rate(optimizer, steps), steps=steps)


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
    optimizer = torch.optim.AdamW(transformer.parameters(), lr=budget.lr, fused=True, weight_decay=0.0)
    generator = torch.Generator().manual_seed(budget.seed + 1)
    batches = _batches(len(latents), budget.batch, generator)
    words = encode_words(captions)

    def loss() -> Tensor:
        rows = next(batches)
        z, text = family.pack(latents[rows]), words[rows]
        kept = torch.rand(len(rows), generator=generator) >= budget.drop_prompt
        t = shifted(torch.randn(len(rows), generator=generator).sigmoid(), budget.time_shift)
        eps = torch.randn(z.shape, generator=generator)
        at = t.reshape(-1, *[1] * (z.ndim - 1))
        velocity = family.velocity(transformer, (1 - at) * z + at * eps, t, text * kept[:, None, None])
        return (velocity - (eps - z)).square().mean()

    steps, schedule, name = budget.steps, _rate(optimizer, budget.steps), f"{family.name}: transformer"
    average, losses = train_small(name, transformer, loss, optimizer, schedule, steps=steps, ema=budget.ema)
    return average, float(np.mean(losses[-max(1, steps // 10) :]))


def shifted(t: Float[Tensor, " batch"], shift: float) -> Float[Tensor, " batch"]:
    """Times moved towards noise as the samplers' schedules move them, where the prompt decides most."""
    return shift * t / (1 + (shift - 1) * t)


def _rate(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear over the first twentieth, then half a cosine to zero."""
    warmup = max(1, steps // 20)
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / warmup) * (1 + math.cos(math.pi * step / steps)) / 2
    )


def _batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield from torch.randperm(count, generator=generator)[: count // size * size].split(size)


def standardise(autoencoder: Any, latents: Tensor) -> Tensor:
    """What the pipeline undoes before decoding."""
    config = autoencoder.config
    if "scaling_factor" in config:
        return (latents - config.shift_factor) * config.scaling_factor
    shape = (1, -1, *[1] * (latents.ndim - 2))
    mean, std = torch.tensor(config.latents_mean).reshape(shape), torch.tensor(config.latents_std).reshape(shape)
    return (latents - mean) / std
