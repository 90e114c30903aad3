"""Frozen image encoders whose tokens a network is aligned with (docs/paper.md#va-repa), all through timm.

One rule for the input size: `grid` tokens of `patch` pixels a side, so that encoder tokens and network tokens
match one to one. At 256 px (grid 16) that is 224 px for patch 14, as REPA feeds DINOv2, and 256 px for
patch 16; position tables are interpolated where the encoder was trained on another grid.

Tokens are read after the encoder's last norm, prefix tokens (class, registers) apart. Weights are safetensors
on this machine; published ones in torch's own format go through `stablevelocity convert-encoder` once. timm, whose
import takes 8 s, is imported where a network is built.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn

from stablevelocity.architectures import DIGITS_VITS, ENCODER_NAMES, ENCODERS, HALF, Rgb
from stablevelocity.errors import UserError
from stablevelocity.files import sha256
from stablevelocity.models.digits import PATCH, WIDTH, load_digits_vit
from stablevelocity.models.weight_files import check_finite, reading_weights
from stablevelocity.progress import log


class Tokens(NamedTuple):
    """patches (batch, grid x grid, width), row by row; class_token (batch, width), None where there is none."""

    patches: Tensor
    class_token: Tensor | None


class Encoder:
    """A frozen encoder with its preprocessing; `encoder(images)` gives float32 tokens.

    `width` and `grid` describe the tokens, `identity` names the weights in manifests (name and file hash).
    """

    def __init__(self, model: nn.Module, *, name: str, grid: int, mean: Rgb, std: Rgb, identity: str) -> None:
        self.model: Any = model.eval().requires_grad_(False)  # timm's VisionTransformer
        self.name, self.grid, self.identity = name, grid, identity
        self.width: int = self.model.embed_dim
        self.has_class_token: bool = self.model.cls_token is not None
        # Registers and class token come first; the class token is the first of all.
        self._prefix: int = self.model.num_prefix_tokens
        self.input_size: int = grid * self.model.patch_embed.patch_size[0]
        self._mean, self._std = torch.tensor(mean) * 255, torch.tensor(std) * 255

    def to(self, device: torch.device | str) -> "Encoder":
        self.model.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self

    def preprocess(self, images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3 side side"]:
        """uint8 NHWC to normalised float32 NCHW of the encoder's input side (bicubic, as REPA does)."""
        x = ((images.to(self._mean.device).float() - self._mean) / self._std).permute(0, 3, 1, 2)
        if x.shape[2:] != (self.input_size, self.input_size):
            x = F.interpolate(x, (self.input_size, self.input_size), mode="bicubic", align_corners=False)
        return x

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "batch height width 3"]) -> Tokens:
        x = self.preprocess(images).to(next(self.model.parameters()).dtype)
        tokens = self.model.forward_features(x).float()
        return Tokens(tokens[:, self._prefix :], tokens[:, 0] if self.has_class_token else None)


def encode_tokens(
    encoder: Encoder, images: UInt8[np.ndarray, "n height width 3"], *, batch: int = 64
) -> tuple[Float[np.ndarray, "n tokens channels"], Float[np.ndarray, "n channels"] | None]:
    """(patch tokens, class tokens or None) of images, float32; `images` may be a memory map."""
    parts = [encoder(torch.from_numpy(np.array(images[k : k + batch]))) for k in range(0, len(images), batch)]
    patches = np.concatenate([part.patches.cpu().numpy() for part in parts])
    if not encoder.has_class_token:
        return patches, None
    return patches, np.concatenate([part.class_token.cpu().numpy() for part in parts if part.class_token is not None])


def neighbour_accuracy(
    tokens: Float[np.ndarray, "n tokens width"],
    labels: Int[np.ndarray, " n"],
    others: Float[np.ndarray, "m tokens width"],
    other_labels: Int[np.ndarray, " m"],
    *,
    neighbours: int = 5,
) -> float:
    """Share of `others` whose class is that of most of their nearest neighbours, by the cosine of mean tokens."""
    mean, other_mean = (F.normalize(torch.from_numpy(part).mean(1), dim=1) for part in (tokens, others))
    nearest = (other_mean @ mean.T).topk(neighbours).indices
    guesses = torch.from_numpy(labels).long()[nearest].mode().values
    return float((guesses == torch.from_numpy(other_labels)).double().mean())


def load_encoder(name: str, path: Path | str, *, grid: int) -> Encoder:
    """An encoder from its weights at `path`: a safetensors file, or a folder with `model.safetensors`.

    `grid` is the tokens per side that the network has. Nothing is downloaded.

    Raises UserError for an unknown name, missing weights, or weights of another architecture.
    """
    file = Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)
    if name not in ENCODER_NAMES:
        raise UserError(f"encoder {name!r} given, expected one of {', '.join(ENCODER_NAMES)}")
    if not file.is_file():
        source = "" if name in DIGITS_VITS else f"; source: {ENCODERS[name].source}"
        raise UserError(f"encoder {name}: no weights at {file} (safetensors){source}")
    digest = sha256(file)
    identity = f"{name}:sha256:{digest[:16]}"
    if name in DIGITS_VITS:
        model: Any = load_digits_vit(file.parent)
        if model.patch_embed.grid_size != (grid, grid):
            given = model.patch_embed.grid_size
            raise UserError(f"encoder {name}: gives {given} tokens, the network has {grid}x{grid}")
        return Encoder(model, name=name, grid=grid, mean=HALF, std=HALF, identity=identity)
    spec = ENCODERS[name]
    if file.suffix != ".safetensors":
        raise UserError(f"encoder {name}: {file} is not safetensors; run `stablevelocity convert-encoder` on it once")
    if spec.pin is not None and digest != spec.pin.sha256:
        log.warning(f"encoder {name}: {file} is not revision {spec.pin.revision[:12]} of {spec.source} (other SHA-256)")
    model = _create(name, grid)
    with reading_weights(file, f"weights of the encoder {name}"):
        from timm.models.vision_transformer import checkpoint_filter_fn

        # timm's filter knows the layouts that authors publish and interpolates the position table.
        state = checkpoint_filter_fn(load_file(file), model, adapt_layer_scale=False)
        model.load_state_dict({key: value for key, value in state.items() if not key.startswith("head.")})
    check_finite(model.state_dict(), file)
    return Encoder(model, name=name, grid=grid, mean=spec.mean, std=spec.std, identity=identity)


def _create(name: str, grid: int) -> Any:
    """The architecture of an encoder with initial weights."""
    import timm

    spec = ENCODERS[name]
    return timm.create_model(spec.timm_name, pretrained=False, num_classes=0, img_size=grid * spec.patch)


def feature_bytes(encoder_width: int, grid: int, images: int) -> int:
    """Disk that half-precision features of `images` take, class token included (say so before making them)."""
    return images * (grid * grid + 1) * encoder_width * 2


def encoder_shape(name: str) -> tuple[int, int]:
    """(width, patch) of an encoder, without loading it."""
    if name in DIGITS_VITS:
        return WIDTH, PATCH
    if name in ENCODERS:
        return ENCODERS[name].width, ENCODERS[name].patch
    raise UserError(f"encoder {name!r} given, expected one of {', '.join(ENCODER_NAMES)}")


def encoder_flops(name: str, grid: int) -> float:
    """Floating-point operations of one image, counted on no device; 0 for the small ones trained here."""
    if name not in ENCODERS:
        return 0.0
    from torch.utils.flop_counter import FlopCounterMode

    side = grid * ENCODERS[name].patch
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        _create(name, grid)(torch.empty(1, 3, side, side))
    return float(counter.get_total_flops())
