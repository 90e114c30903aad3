"""Latents: mean and standard deviation of the autoencoder's posterior per image, sampled at each use."""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, Int
from torch import Tensor

from stablevelocity.data.shards import ShardSet, read_shard, write_shard
from stablevelocity.models.autoencoders import autoencoder_identity, encode_images
from stablevelocity.progress import Progress

# Images are encoded in slices, so that a shard of any size runs in bounded memory and shows progress.
SLICE = 512


def write_latent_shard(image_shard: Path, model: AutoencoderKL, output: Path) -> None:
    """Encode one shard of images into one shard of `mean`, `std` (half precision, unscaled) and `labels`."""
    arrays = read_shard(image_shard)
    images = arrays["images"]
    progress = Progress(f"latents {output.name}", len(images), "images")
    means, stds = [], []
    for start in range(0, len(images), SLICE):
        mean, std = encode_images(model, images[start : start + SLICE])
        means.append(mean.astype(np.float16))
        stds.append(std.astype(np.float16))
        progress.update(len(mean))
    write_shard(
        output,
        {"mean": np.concatenate(means), "std": np.concatenate(stds), "labels": np.array(arrays["labels"])},
    )


def latent_info(autoencoder: Path | str, revision: str | None, scale: float | None) -> dict:
    """What the manifest of latents says of their autoencoder: id, identity of its weights, scale."""
    if scale is None:
        from stablevelocity.models.autoencoders import load_autoencoder

        scale = float(load_autoencoder(autoencoder, revision).config["scaling_factor"])
    return {
        "autoencoder": str(autoencoder),
        "revision": revision,
        "identity": autoencoder_identity(autoencoder, revision),
        "scale": scale,
    }


class Latents:
    """A set of latents opened for training or analysis.

    `shape` is (channels, height, width), `labels` (n,) int64, `scale` what samples are multiplied by.
    """

    def __init__(self, manifest: Path | str):
        self._shards = ShardSet(manifest)
        self.manifest = self._shards.manifest
        self.scale = float(self.manifest["scale"])
        self.num_classes = int(self.manifest["num_classes"])
        self.shape = tuple(self.manifest["arrays"]["mean"]["shape"])
        self.labels = torch.from_numpy(self._shards.all("labels"))

    def __len__(self) -> int:
        return len(self._shards)

    def sample(
        self, indices: Int[Tensor, " batch"], noise: Float[Tensor, "batch c h w"]
    ) -> Float[Tensor, "batch c h w"]:
        """Scaled posterior samples (mean + std * noise) * scale of the images at `indices`, float32."""
        rows = indices.numpy()
        mean = torch.from_numpy(self._shards.rows("mean", rows)).float()
        std = torch.from_numpy(self._shards.rows("std", rows)).float()
        return (mean + std * noise) * self.scale

    def means(self, count: int | None = None) -> Float[Tensor, "n c h w"]:
        """Scaled posterior means of the first `count` images (all by default), float32."""
        rows = np.arange(len(self) if count is None else min(count, len(self)))
        return torch.from_numpy(self._shards.rows("mean", rows)).float() * self.scale

    def describe(self) -> str:
        """The identity that trained weights carry along: autoencoder and scale."""
        return json.dumps({key: self.manifest[key] for key in ("autoencoder", "identity", "scale")})
