"""The encoder of the digits study: a small timm vision transformer, trained here as a classifier.

It stands for DINOv2 where nothing can be downloaded: its tokens carry class information, so aligning with them
means something; how much this says about self-supervised encoders at scale is not known.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stablevelocity.files import atomic_write, read_json, write_json
from stablevelocity.models.train_small import train_small
from stablevelocity.models.weight_files import check_finite, reading_weights
from stablevelocity.study.published import DIGITS_PATCH

PATCH, WIDTH, DEPTH, HEADS = DIGITS_PATCH, 64, 4, 4
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.05
WARM_UP = 0.1  # share of the steps
SHIFT = 1  # pixels


def build_digits_vit(*, side: int, patch: int, width: int, depth: int, heads: int, classes: int) -> nn.Module:
    """A timm VisionTransformer for images of `side` pixels."""
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=side, patch_size=patch, embed_dim=width, depth=depth, num_heads=heads, num_classes=classes
    )
    # timm's initial values (std 0.02) suit long training: after 400 steps they reach 82 % on digits, these 99 %.
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.flatten(1))
    assert model.pos_embed is not None
    nn.init.normal_(model.pos_embed, std=0.2)
    return model


def normalise(images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3 height width"]:
    """uint8 NHWC to [-1, 1] NCHW, as `encoders.Encoder` does with mean and std 0.5."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def train_classifier_vit(
    images: UInt8[np.ndarray, "n side side 3"],
    labels: Int[np.ndarray, " n"],
    *,
    steps: int,
    seed: int,
    batch: int = 64,
) -> nn.Module:
    """Train the classifier on images shifted by up to 1 pixel (dark border), cross-entropy, AdamW.

    Raises UserError when the loss stops being finite.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    side, classes = images.shape[1], int(labels.max()) + 1
    model = build_digits_vit(side=side, patch=PATCH, width=WIDTH, depth=DEPTH, heads=HEADS, classes=classes)
    data, target = normalise(torch.from_numpy(images)), torch.from_numpy(labels).long()
    padded = F.pad(data, (SHIFT,) * 4, value=-1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))

    def loss() -> Tensor:
        rows = torch.randint(len(data), (batch,), generator=generator)
        return F.cross_entropy(model(_shifted(padded, rows, side, generator)), target[rows])

    advice = "change encoder.seed or encoder.steps"
    train_small("encoder", model, loss, optimizer, schedule, steps=steps, advice=advice)
    return model


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine to 0."""
    warm_up = max(1, int(WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _shifted(
    padded: Float[Tensor, "n 3 height width"], rows: Int[Tensor, " batch"], side: int, generator: torch.Generator
) -> Float[Tensor, "batch 3 side side"]:
    """Each image of `rows` cut out of its padded form at a random place."""
    offsets = torch.randint(2 * SHIFT + 1, (2, len(rows), 1), generator=generator) + torch.arange(side)
    return padded[rows[:, None, None], :, offsets[0][:, :, None], offsets[1][:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def classify(
    model: nn.Module, images: UInt8[np.ndarray, "n side side 3"], *, batch: int = 256
) -> Float[np.ndarray, "n classes"]:
    """Class probabilities of images."""
    parts = [model(normalise(torch.from_numpy(np.array(images[k : k + batch])))) for k in range(0, len(images), batch)]
    return torch.cat(parts).softmax(1).numpy()


def save_digits_vit(model: nn.Module, folder: Path | str, **info: Any) -> None:
    """Write `model.safetensors` and `config.json` (its sizes, and whatever is in `info`) into `folder`."""
    vit: Any = model
    config = {
        "side": vit.patch_embed.img_size[0],
        "patch": vit.patch_embed.patch_size[0],
        "width": vit.embed_dim,
        "depth": len(vit.blocks),
        "heads": vit.blocks[0].attn.num_heads,
        "classes": vit.num_classes,
    }
    with atomic_write(Path(folder) / "model.safetensors") as temporary:
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, temporary)
    write_json(Path(folder) / "config.json", {**config, "info": info})


def load_digits_vit(folder: Path | str) -> nn.Module:
    """The model of `save_digits_vit`, in evaluation mode."""
    with reading_weights(folder, f"config.json and model.safetensors of {DIGITS_VIT}, which the encoder stage makes"):
        config = read_json(Path(folder) / "config.json")
        config.pop("info")
        model = build_digits_vit(**config)
        model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    check_finite(model.state_dict(), folder)
    return model.eval()
