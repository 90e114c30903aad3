"""Latents: mean and standard deviation of the autoencoder's posterior per image, sampled at each use."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stablevelocity.data.shards import ShardSet
from stablevelocity.errors import UserError


class Latents:
    """A set of latents opened for training or analysis.

    `shape` is (channels, height, width), `labels` (n,) int64, `scale` what samples are multiplied by.
    `checksums` as for `ShardSet`.
    """

    def __init__(self, manifest: Path | str, *, checksums: bool = True):
        self._shards = ShardSet(manifest, "mean", "std", "labels", checksums=checksums)
        self.manifest = self._shards.manifest
        missing = [key for key in ("autoencoder", "identity", "scale", "num_classes") if key not in self.manifest]
        if missing:
            raise UserError(f"{manifest}: has no {missing[0]!r}; expected a manifest of latents")
        try:
            self.scale, self.num_classes = float(self.manifest["scale"]), int(self.manifest["num_classes"])
        except (TypeError, ValueError, OverflowError):
            self.scale = math.nan
        if not 0 < self.scale < math.inf:
            raise UserError(f"{manifest}: its scale or num_classes is no number above 0")
        self.shape = tuple(self.manifest["arrays"]["mean"]["shape"])
        self.labels = torch.from_numpy(self._shards.all("labels"))
        if not len(self.labels) or not 0 <= self.labels.min() <= self.labels.max() < self.num_classes:
            raise UserError(f"{manifest}: its labels are not those of {self.num_classes} classes")

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

    def means(self, rows: np.ndarray) -> Float[Tensor, "n c h w"]:
        """Scaled posterior means of the images at `rows`, float32."""
        return torch.from_numpy(self._shards.rows("mean", rows)).float() * self.scale

    def deviations(self, rows: np.ndarray) -> Float[Tensor, "n c h w"]:
        """Scaled posterior standard deviations of the images at `rows`, float32."""
        return torch.from_numpy(self._shards.rows("std", rows)).float() * self.scale

    def describe(self) -> str:
        """The identity that trained weights carry along: autoencoder and scale."""
        return json.dumps({key: self.manifest[key] for key in ("autoencoder", "identity", "scale")})
