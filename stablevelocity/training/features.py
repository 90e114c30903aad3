"""The frozen encoder's tokens of every training image, computed once and read by row."""

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stablevelocity.data.shards import ShardSet
from stablevelocity.errors import UserError


class Features:
    """Precomputed encoder features: `tokens` (n, tokens, width) and `class_token` (n, width), half precision.

    Row i belongs to image i of the latents; the two sets are checked against each other.
    """

    def __init__(self, manifest: Path | str, images: int, grid: int):
        self._shards = ShardSet(manifest)
        self.encoder = self._shards.manifest["encoder"]
        tokens, self.width = self._shards.manifest["arrays"]["tokens"]["shape"]
        if len(self._shards) != images:
            raise UserError(f"{manifest}: {len(self._shards)} rows, but there are {images} latents")
        if tokens != grid * grid:
            raise UserError(
                f"{manifest}: encoder {self.encoder!r} gives {tokens} tokens, but the network has "
                f"{grid} x {grid}; choose encoder, image size and patch size that match"
            )

    def tokens(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, "batch tokens width"]:
        return torch.from_numpy(self._shards.rows("tokens", indices.numpy())).float()

    def class_token(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        return torch.from_numpy(self._shards.rows("class_token", indices.numpy())).float()
