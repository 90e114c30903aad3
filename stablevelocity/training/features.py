"""The frozen encoder's tokens of the training images: read from disk, or made at every step from the images.

Row i belongs to image i of the latents; `width` is that of a token, `encoder` its identity. `read` reads from disk what
the tokens of some rows take; it may run in a thread, ahead of the step that asks for `tokens`, which may be given the
same arrays on another device. Raises UserError where a class token is asked of an encoder that has none.
"""

from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from stablevelocity.data.shards import ShardSet
from stablevelocity.errors import UserError
from stablevelocity.files import read_json
from stablevelocity.models.encoders import Encoder, Tokens, load_encoder


def open_features(
    manifest: Path | str, images: int, grid: int, device: torch.device | str = "cpu", *, checksums: bool = True
) -> "Features":
    """The features that `manifest` describes, checked against `images` latents and a `grid` x `grid` network.

    `checksums` as for `ShardSet`. Raises UserError when they do not belong together.
    """
    if "images" in read_json(manifest):
        return OnlineFeatures(manifest, images, grid, device)
    return StoredFeatures(manifest, images, grid, checksums)


class StoredFeatures:
    """Precomputed: `tokens` (n, tokens, width) and `class_token` (n, width), half precision, in shards and as given."""

    def __init__(self, manifest: Path | str, images: int, grid: int, checksums: bool = True):
        self._shards = ShardSet(manifest, "tokens", checksums=checksums)
        self.encoder: str = self._shards.manifest.get("encoder", "unknown")
        tokens, self.width = self._shards.manifest["arrays"]["tokens"]["shape"]
        _check(manifest, self.encoder, len(self._shards), images, tokens, grid)

    def read(self, indices: Int[Tensor, " batch"], *, class_token: bool = False) -> dict[str, Tensor]:
        if class_token and "class_token" not in self._shards.manifest["arrays"]:
            raise UserError(f"{self.encoder}: this encoder has no class token, which REG needs")
        names = ("tokens", "class_token") if class_token else ("tokens",)
        return {name: torch.from_numpy(self._shards.rows(name, indices.numpy())) for name in names}

    def tokens(self, read: dict[str, Tensor]) -> Tokens:
        return Tokens(read["tokens"], read.get("class_token"))


class OnlineFeatures:
    """The encoder run on the images of each step: no disk, some more time per step, float32 instead of float16.

    On an accelerator the encoder runs in bfloat16 under autocast, as published REPA code does.
    """

    def __init__(self, manifest: Path | str, images: int, grid: int, device: torch.device | str):
        described = read_json(manifest)
        folder = Path(manifest).parent
        # The images were checked against their checksums when the latents were made.
        self._images = ShardSet(folder / described["images"], "images", checksums=False)
        self._device = torch.device(device)
        self._model: Encoder = load_encoder(described["name"], described["path"], grid=described["grid"]).to(device)
        if self._model.identity != described["encoder"]:
            raise UserError(f"{manifest}: made for {described['encoder']}, but the weights are {self._model.identity}")
        self.encoder, self.width = self._model.identity, self._model.width
        _check(manifest, self.encoder, len(self._images), images, self._model.grid**2, grid)

    def read(self, indices: Int[Tensor, " batch"], *, class_token: bool = False) -> dict[str, Tensor]:
        if class_token and not self._model.has_class_token:
            raise UserError(f"{self.encoder}: this encoder has no class token, which REG needs")
        return {"images": torch.from_numpy(self._images.rows("images", indices.numpy()))}

    def tokens(self, read: dict[str, Tensor]) -> Tokens:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type != "cpu"):
            return self._model(read["images"])


Features = StoredFeatures | OnlineFeatures


def _check(manifest: Path | str, encoder: str, rows: int, images: int, tokens: int, grid: int) -> None:
    if rows != images:
        raise UserError(f"{manifest}: {rows} rows, but there are {images} latents")
    if tokens != grid * grid:
        raise UserError(
            f"{manifest}: encoder {encoder!r} gives {tokens} tokens, but the network has "
            f"{grid} x {grid}; choose encoder, image size and patch size that match"
        )
