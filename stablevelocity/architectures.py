"""Networks by the names of their publications: sizes of SiT, and the frozen image encoders.

No torch: studies are checked by it. No pydantic: the models need it, and users have them without the pipeline.
"""

from dataclasses import dataclass

# Depth, width, heads, and the block (counted from 1) whose tokens the projectors read.
SIZES = {
    "S": {"depth": 12, "width": 384, "heads": 6, "encoder_depth": 4},
    "B": {"depth": 12, "width": 768, "heads": 12, "encoder_depth": 4},
    "L": {"depth": 24, "width": 1024, "heads": 16, "encoder_depth": 8},
    "XL": {"depth": 28, "width": 1152, "heads": 16, "encoder_depth": 8},
}
PATCH_SIZES = (2, 4, 8)
SIT_NAMES = tuple(f"SiT-{size}/{patch}" for size in SIZES for patch in PATCH_SIZES)

#: Trained here, with labels and without: see models/digits.py.
DIGITS_VIT = "digits-vit"
DIGITS_VITS = (DIGITS_VIT, "digits-vit-ssl")
DIGITS_PATCH = 4

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
    # timm has the architecture but hands out no weights of MoCo-v3 (whose small model has other heads).
    "mocov3-base": EncoderSpec("vit_base_patch16_224", 768, 16, "the authors' vit-b-300ep.pth.tar, converted"),
}
ENCODER_NAMES = (*DIGITS_VITS, *ENCODERS)
