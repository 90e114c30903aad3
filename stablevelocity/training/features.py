"""The frozen encoder's tokens of the training images: read from disk, or made at every step from the images."""

from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stablevelocity.data.shards import ShardSet
from stablevelocity.errors import UserError
from stablevelocity.files import read_json
from stablevelocity.models.encoders import Encoder, Tokens, load_encoder


class Features(Protocol):
    """Tokens by row; row i belongs to image i of the latents. `width` is that of a token, `encoder` its identity."""

    width: int
    encoder: str

    def tokens(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, "batch tokens width"]: ...

    def class_token(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, "batch width"]: ...


def open_features(
    manifest: Path | str, images: int, grid: int, device: torch.device | str = "cpu", *, checksums: bool = True
) -> Features:
    """The features that `manifest` describes, checked against `images` latents and a `grid` x `grid` network.

    `checksums` as for `ShardSet`. Raises UserError when they do not belong together.
    """
    if "images" in read_json(manifest):
        return OnlineFeatures(manifest, images, grid, device)
    return StoredFeatures(manifest, images, grid, checksums)


class StoredFeatures:
    """Precomputed: `tokens` (n, tokens, width) and `class_token` (n, width), half precision, in shards."""

    def __init__(self, manifest: Path | str, images: int, grid: int, checksums: bool = True):
        self._shards = ShardSet(manifest, checksums=checksums)
        self.encoder: str = self._shards.manifest["encoder"]
        tokens, self.width = self._shards.manifest["arrays"]["tokens"]["shape"]
        _check(manifest, self.encoder, len(self._shards), images, tokens, grid)

    def tokens(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, "batch tokens width"]:
        return torch.from_numpy(self._shards.rows("tokens", indices.numpy())).float()

    def class_token(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        if "class_token" not in self._shards.manifest["arrays"]:
            raise UserError(f"{self.encoder}: this encoder has no class token, which REG needs")
        return torch.from_numpy(self._shards.rows("class_token", indices.numpy())).float()


class OnlineFeatures:
    """The encoder run on the images of each step: no disk, some more time per step, float32 instead of float16.

    On an accelerator the encoder runs in bfloat16 under autocast, as published REPA code does.
    """

    def __init__(self, manifest: Path | str, images: int, grid: int, device: torch.device | str):
        described = read_json(manifest)
        folder = Path(manifest).parent
        # The images were checked against their checksums when the latents were made.
        self._images = ShardSet(folder / described["images"], checksums=False)
        self._device = torch.device(device)
        self._model: Encoder = load_encoder(described["name"], described["path"], grid=described["grid"]).to(device)
        if self._model.identity != described["encoder"]:
            raise UserError(f"{manifest}: made for {described['encoder']}, but the weights are {self._model.identity}")
        self.encoder, self.width = self._model.identity, self._model.width
        _check(manifest, self.encoder, len(self._images), images, self._model.grid**2, grid)
        self._last: tuple[Tensor, Tokens] | None = None

    def tokens(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, "batch tokens width"]:
        return self._encode(indices).patches

    def class_token(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        found = self._encode(indices).class_token
        if found is None:
            raise UserError(f"{self.encoder}: this encoder has no class token, which REG needs")
        return found

    def _encode(self, indices: Tensor) -> Tokens:
        """Tokens of some rows; a step asks for patches and class token of the same rows, so the last is kept."""
        if self._last is None or not torch.equal(self._last[0], indices):
            images = torch.from_numpy(self._images.rows("images", indices.numpy()))
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type != "cpu"):
                self._last = indices.clone(), self._model(images)
        return self._last[1]


def _check(manifest: Path | str, encoder: str, rows: int, images: int, tokens: int, grid: int) -> None:
    if rows != images:
        raise UserError(f"{manifest}: {rows} rows, but there are {images} latents")
    if tokens != grid * grid:
        raise UserError(
            f"{manifest}: encoder {encoder!r} gives {tokens} tokens, but the network has "
            f"{grid} x {grid}; choose encoder, image size and patch size that match"
        )
