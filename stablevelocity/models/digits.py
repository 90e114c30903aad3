"""The encoders of the digits studies: a small timm vision transformer, trained here with labels or without.

They stand for DINOv2 where nothing can be downloaded. Without labels the network learns as DINOv2 does, from two views
of an image (here by a contrastive loss) and from hidden patches (here their pixels). What either says about encoders at
scale is not known.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stablevelocity.architectures import DIGITS_PATCH
from stablevelocity.files import atomic_write, read_json, write_json
from stablevelocity.models.pixels import to_unit_range
from stablevelocity.models.train_small import train_small
from stablevelocity.models.weight_files import check_finite, reading_weights

PATCH, WIDTH, DEPTH, HEADS = DIGITS_PATCH, 64, 4, 4
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.05
WARM_UP = 0.1  # share of the steps
SHIFT = 1  # pixels
# Without labels; chosen by the nearest-neighbour accuracy of 400 to 800 steps of seed 0.
TEMPERATURE = 0.1
HIDDEN = 0.1  # share of the patches
PIXEL_WEIGHT = 5.0  # of the squared error of hidden pixels, beside the contrastive loss


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


def train_classifier_vit(
    images: UInt8[np.ndarray, "n side side 3"], labels: Int[np.ndarray, " n"], *, steps: int, seed: int, batch: int = 64
) -> nn.Module:
    """Train the classifier on images shifted by up to 1 pixel (dark border), cross-entropy, AdamW.

    Raises UserError when the loss stops being finite.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    side, classes = images.shape[1], int(labels.max()) + 1
    model = build_digits_vit(side=side, patch=PATCH, width=WIDTH, depth=DEPTH, heads=HEADS, classes=classes)
    train_images, target = to_unit_range(torch.from_numpy(images)), torch.from_numpy(labels).long()
    padded = F.pad(train_images, (SHIFT,) * 4, value=-1.0)

    def loss() -> Tensor:
        rows = torch.randint(len(train_images), (batch,), generator=generator)
        return F.cross_entropy(model(_shifted(padded, rows, side, generator)), target[rows])

    _train(model, loss, steps)
    return model


def train_unlabelled_vit(
    images: UInt8[np.ndarray, "n side side 3"], *, steps: int, seed: int, batch: int = 64
) -> nn.Module:
    """Train the same network without labels; its head, of one class, stays untrained.

    Two views of each image, turned, scaled, sheared and shifted, some patches dark. The mean tokens of the two must
    find each other among the batch (NT-Xent), and each dark patch's token must tell its pixels.
    Raises UserError when the loss stops being finite.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    grid = images.shape[1] // PATCH
    model: Any = build_digits_vit(side=images.shape[1], patch=PATCH, width=WIDTH, depth=DEPTH, heads=HEADS, classes=1)
    head = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
    pixels = nn.Linear(WIDTH, 3 * PATCH**2)
    train_images = to_unit_range(torch.from_numpy(images))
    other = (torch.arange(2 * batch) + batch) % (2 * batch)

    def loss() -> Tensor:
        rows = torch.randint(len(train_images), (batch,), generator=generator)
        views = _moved(train_images[rows].repeat(2, 1, 1, 1), generator)
        hidden = torch.rand(2 * batch, 1, grid, grid, generator=generator) < HIDDEN
        dark = views.masked_fill(hidden.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3), -1.0)
        tokens = model.forward_features(dark)[:, model.num_prefix_tokens :]
        embedding = F.normalize(head(tokens.mean(1)), dim=1)
        logits = (embedding @ embedding.T / TEMPERATURE).fill_diagonal_(-torch.inf)
        truth = F.unfold(views, PATCH, stride=PATCH).mT
        error = (pixels(tokens) - truth)[hidden.flatten(1)].square().mean()
        return F.cross_entropy(logits, other) + PIXEL_WEIGHT * error

    _train(nn.ModuleList([model, head, pixels]), loss, steps)
    return model


def _train(model: nn.Module, loss: Callable[[], Tensor], steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    advice = "change encoder.seed or encoder.steps"
    train_small("encoder", model, loss, optimizer, schedule, steps=steps, advice=advice)


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


def _moved(x: Float[Tensor, "n 3 height width"], generator: torch.Generator) -> Float[Tensor, "n 3 height width"]:
    """Each image turned by up to 15 degrees, scaled by up to 15 %, sheared by up to 0.2, shifted by up to 15 % of half
    its side; what comes in from outside is dark.
    """
    turn, scale, shear, right, down = torch.rand(5, len(x), generator=generator) * 2 - 1
    turn, scale = turn * math.pi / 12, 1 + 0.15 * scale
    rows = [
        torch.stack([scale * turn.cos(), -scale * turn.sin() + 0.2 * shear, 0.15 * right], 1),
        torch.stack([scale * turn.sin(), scale * turn.cos(), 0.15 * down], 1),
    ]
    places = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, places, align_corners=False) - 1


@torch.no_grad()
def classify(model: nn.Module, images: UInt8[np.ndarray, "n side side 3"]) -> Float[np.ndarray, "n classes"]:
    """Class probabilities of images."""
    parts = [torch.from_numpy(np.array(images[k : k + 256])) for k in range(0, len(images), 256)]
    return torch.cat([model(to_unit_range(part)) for part in parts]).softmax(1).numpy()


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
    with reading_weights(folder, "config.json and model.safetensors of the encoder, which the encoder stage makes"):
        config = read_json(Path(folder) / "config.json")
        config.pop("info")
        model = build_digits_vit(**config)
        model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    check_finite(model.state_dict(), folder)
    return model.eval()
