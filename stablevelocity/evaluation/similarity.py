"""How close pictures come to others of the same noise, pair by pair (docs/paper.md#stablevs)."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from stablevelocity.errors import UserError
from stablevelocity.evaluation.extractors import Extractor
from stablevelocity.files import sha256
from stablevelocity.models.pixels import psnr

LPIPS_BACKBONE = "alexnet-owt-7be5be79.pth"
"""Torchvision's AlexNet; the end of the name is the start of its SHA-256. torchmetrics ships the rest of LPIPS."""
LPIPS_MIN_SIZE = 64
"""Below this AlexNet's pooling leaves nothing of the deeper feature maps."""
MOST_PIXELS = 2_000_000
"""Compared at once: in double precision, with SSIM's own, half a gigabyte."""


def compare_images(
    images: UInt8[np.ndarray, "n height width 3"],
    others: UInt8[np.ndarray, "_ _ _ 3"],
    *,
    extractor: Extractor | None = None,
) -> pd.DataFrame:
    """One row per pair: psnr (dB), ssim, and where they can be had lpips and feature_distance.

    PSNR is over all pixels and channels with peak 255, infinite for equal images. SSIM is Wang et al.'s: 11-pixel
    Gaussian window, images reflected at the border, mean over pixels and channels. The feature distance is Euclidean
    between pool features of the study's own extractor; it is not LPIPS and is not named so. LPIPS needs AlexNet's
    weights in torch's hub cache (nothing is fetched) and images of 64 px or more; else its column is absent. Images are
    taken a few at a time, so memory holds little more than the arrays given.
    """
    if images.shape != others.shape or not len(images):
        raise UserError(f"compared images have shapes {images.shape} and {others.shape}; expected equal ones")
    backbone = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_BACKBONE
    lpips = _lpips(backbone) if min(images.shape[1:3]) >= LPIPS_MIN_SIZE and backbone.is_file() else None
    size = max(1, min(64, MOST_PIXELS // (images.shape[1] * images.shape[2])))
    parts = []
    for start in range(0, len(images), size):
        pair = [torch.from_numpy(np.array(array[start : start + size])) for array in (images, others)]
        a, b = (part.permute(0, 3, 1, 2).double() for part in pair)
        columns = {"psnr": psnr((a - b).square().mean(dim=(1, 2, 3)), 255.0), "ssim": _ssim(a, b)}
        if lpips is not None:
            columns["lpips"] = lpips(a.float() / 127.5 - 1, b.float() / 127.5 - 1)
        if extractor is not None:
            ours, theirs = (extractor(part).pool for part in pair)
            columns["feature_distance"] = (ours - theirs).norm(dim=1)
        parts.append(pd.DataFrame({name: column.double().numpy() for name, column in columns.items()}))
    return pd.concat(parts, ignore_index=True)


@functools.cache
def _lpips(backbone: Path) -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS 0.1 with AlexNet, of images in [-1, 1]. Raises UserError when its weights are damaged."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    expected = backbone.stem.rsplit("-", 1)[1]
    if not sha256(backbone).startswith(expected):
        raise UserError(f"{backbone}: its SHA-256 does not start with {expected}; fetch it again")
    metric = LearnedPerceptualImagePatchSimilarity("alex", reduction="none")

    @torch.no_grad()
    def distances(a: Float[Tensor, "n 3 height width"], b: Float[Tensor, "n 3 height width"]) -> Float[Tensor, " n"]:
        metric.reset()
        metric.update(a, b)
        return metric.compute().reshape(len(a))

    return distances


def _ssim(a: Float[Tensor, "n 3 height width"], b: Float[Tensor, "n 3 height width"]) -> Float[Tensor, " n"]:
    """As torchmetrics', whose two-dimensional window in double precision takes some fifteen times as long."""
    window = torch.exp(-torch.arange(-5.0, 6.0, dtype=torch.float64).square() / (2 * 1.5**2))
    weights = (window / window.sum()).tolist()
    height, width = a.shape[-2:]

    def blurred(x: Tensor) -> Tensor:
        x = F.pad(x, (5, 5, 5, 5), mode="reflect")
        x = sum((weight * x[..., k : k + width] for k, weight in enumerate(weights)), start=torch.zeros(()))
        return sum((weight * x[..., k : k + height, :] for k, weight in enumerate(weights)), start=torch.zeros(()))

    mean_a, mean_b, square_a, square_b, product = (blurred(x) for x in (a, b, a * a, b * b, a * b))
    variances = (square_a - mean_a**2).clamp(min=0) + (square_b - mean_b**2).clamp(min=0)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * (product - mean_a * mean_b) + c2) / (variances + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))
