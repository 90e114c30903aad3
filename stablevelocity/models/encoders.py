"""Frozen image encoders whose tokens a network is aligned with (docs/paper.md#va-repa), all through timm.

One rule for the input size: `grid` tokens of `patch` pixels a side, so that encoder tokens and network tokens
match one to one. At 256 px (grid 16) that is 224 px for patch 14, as REPA feeds DINOv2, and 256 px for
patch 16; position tables are interpolated where the encoder was trained on another grid.

Tokens are read after the encoder's last norm, prefix tokens (class, registers) apart. Weights are safetensors
on this machine; published ones in torch's own format go through `stablevelocity convert-encoder` once. timm, whose
import takes 8 s, is imported where a network is built.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stablevelocity.errors import UserError
from stablevelocity.files import sha256
from stablevelocity.models.digits import DIGITS_VIT, DIGITS_VIT_SSL, PATCH, WIDTH, load_digits_vit
from stablevelocity.progress import log

Rgb = tuple[float, float, float]
IMAGENET_MEAN: Rgb = (0.485, 0.456, 0.406)
IMAGENET_STD: Rgb = (0.229, 0.224, 0.225)
HALF: Rgb = (0.5, 0.5, 0.5)
CLIP_MEAN: Rgb = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Rgb = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Pin:
    """A published file that the numbers of a study can be tied to: hub revision, SHA-256 of model.safetensors."""

    revision: str
    sha256: str


@dataclass(frozen=True)
class EncoderSpec:
    """What is fixed about an encoder: timm architecture, token width, patch, normalisation, where it is.

    `source` is the hub repository of timm weights, or where the authors publish a file to be converted. `pin` is
    given where revision and hash are known; for the others the manifest of the features keeps the hash.
    """

    timm_name: str
    width: int
    patch: int
    source: str
    class_token: bool = True
    mean: Rgb = IMAGENET_MEAN
    std: Rgb = IMAGENET_STD
    pin: Pin | None = None


def _timm(name: str, width: int, patch: int, pin: Pin | None = None) -> EncoderSpec:
    return EncoderSpec(name, width, patch, f"timm/{name}", pin=pin)


def _clip(name: str, width: int, patch: int) -> EncoderSpec:
    # OpenAI's weights were trained with QuickGELU; timm's names without "quickgelu" use another activation.
    source = f"timm/{name.replace('_quickgelu', '')}"
    return EncoderSpec(name, width, patch, source, mean=CLIP_MEAN, std=CLIP_STD)


def _moco() -> EncoderSpec:
    # timm has the architecture but hands out no weights of MoCo-v3 (whose small model has other heads).
    return EncoderSpec("vit_base_patch16_224", 768, 16, "the authors' vit-b-300ep.pth.tar, converted")


def _ijepa(name: str, width: int, patch: int) -> EncoderSpec:
    return EncoderSpec(name, width, patch, "the authors' *.pth.tar, converted", class_token=False)


DINOV2_SMALL_PIN = Pin(
    "4610ca143709d58a633b6397a74412c2c3842454", "04d27f3400d059fc0cfd7d17dd1909a75bf3ea8fb3eeb48b97cb99e57ee20081"
)
DINOV2_BASE_PIN = Pin(
    "4685c99dabffe5affac90bd99dbffd25801ae58d", "55cbb5d887b336d430e649c277b85a1429e724871f9d02ac16203235886d8c7b"
)
DINOV2_LARGE_PIN = Pin(
    "4741e1cafbf45415e77074bb0cb42dba76c8684a", "0424a5d1b515278cba3c6640ccbeaacc41de59d3a93df0dd5e494285eea2b355"
)

ENCODERS: dict[str, EncoderSpec] = {
    "dinov2-small": _timm("vit_small_patch14_dinov2.lvd142m", 384, 14, DINOV2_SMALL_PIN),
    "dinov2-base": _timm("vit_base_patch14_dinov2.lvd142m", 768, 14, DINOV2_BASE_PIN),
    "dinov2-large": _timm("vit_large_patch14_dinov2.lvd142m", 1024, 14, DINOV2_LARGE_PIN),
    "dinov2-giant": _timm("vit_giant_patch14_dinov2.lvd142m", 1536, 14),
    "dinov2-reg-small": _timm("vit_small_patch14_reg4_dinov2.lvd142m", 384, 14),
    "dinov2-reg-base": _timm("vit_base_patch14_reg4_dinov2.lvd142m", 768, 14),
    "dinov2-reg-large": _timm("vit_large_patch14_reg4_dinov2.lvd142m", 1024, 14),
    "dinov2-reg-giant": _timm("vit_giant_patch14_reg4_dinov2.lvd142m", 1536, 14),
    "dinov1-small": _timm("vit_small_patch16_224.dino", 384, 16),
    "dinov1-base": _timm("vit_base_patch16_224.dino", 768, 16),
    "mae-base": _timm("vit_base_patch16_224.mae", 768, 16),
    "mae-large": _timm("vit_large_patch16_224.mae", 1024, 16),
    "mae-huge": _timm("vit_huge_patch14_224.mae", 1280, 14),
    "clip-base": _clip("vit_base_patch16_clip_quickgelu_224.openai", 768, 16),
    "clip-large": _clip("vit_large_patch14_clip_quickgelu_224.openai", 1024, 14),
    "ijepa-huge": _ijepa("vit_huge_patch14_gap_224.in1k_ijepa", 1280, 14),
    "ijepa-giant": _ijepa("vit_giant_patch16_gap_224.in22k_ijepa", 1408, 16),
    "mocov3-base": _moco(),
}
#: Trained here, by the study itself.
TRAINED_HERE = (DIGITS_VIT, DIGITS_VIT_SSL)
ENCODER_NAMES = (*TRAINED_HERE, *ENCODERS)


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
        source = "" if name in TRAINED_HERE else f"; source: {ENCODERS[name].source}"
        raise UserError(f"encoder {name}: no weights at {file} (safetensors){source}")
    digest = sha256(file)
    identity = f"{name}:sha256:{digest[:16]}"
    if name in TRAINED_HERE:
        model: Any = load_digits_vit(file.parent)
        if model.patch_embed.grid_size != (grid, grid):
            raise UserError(
                f"encoder {name}: gives {model.patch_embed.grid_size} tokens, the network has {grid}x{grid}"
            )
        return Encoder(model, name=name, grid=grid, mean=HALF, std=HALF, identity=identity)
    spec = ENCODERS[name]
    if file.suffix != ".safetensors":
        raise UserError(f"encoder {name}: {file} is not safetensors; run `stablevelocity convert-encoder` on it once")
    if spec.pin is not None and digest != spec.pin.sha256:
        log.warning(f"encoder {name}: {file} is not revision {spec.pin.revision[:12]} of {spec.source} (other SHA-256)")
    model = _create(name, grid)
    try:
        from timm.models.vision_transformer import checkpoint_filter_fn

        # timm's filter knows the layouts that authors publish and interpolates the position table.
        state = checkpoint_filter_fn(load_file(file), model, adapt_layer_scale=False)
        model.load_state_dict({key: value for key, value in state.items() if not key.startswith("head.")})
    except (RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"encoder {name}: {file} does not hold its weights ({reason})") from None
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
    if name in TRAINED_HERE:
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
