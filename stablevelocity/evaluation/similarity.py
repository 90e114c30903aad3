"""How close short runs come to a long run from the same noise (docs/paper.md#stablevs)."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.evaluation.extractors import Extractor
from stablevelocity.files import sha256

LPIPS_BACKBONE = "alexnet-owt-7be5be79.pth"
"""Torchvision's AlexNet; the end of the name is the start of its SHA-256. torchmetrics ships the rest of LPIPS."""
LPIPS_MIN_SIZE = 64
"""Below this AlexNet's pooling leaves nothing of the deeper feature maps."""
MOST_PIXELS = 2_000_000
"""Compared at once."""


def compare_images(
    images: UInt8[np.ndarray, "n height width 3"],
    references: UInt8[np.ndarray, "_ _ _ 3"],
    *,
    extractor: Extractor | None = None,
) -> pd.DataFrame:
    """One row per pair: psnr (dB), ssim, and where they can be had lpips and feature_distance.

    PSNR is over all pixels and channels with peak 255, infinite for equal images. SSIM is Wang et al.'s: 11-pixel
    Gaussian window, images reflected at the border, mean over pixels and channels. The feature distance
    is Euclidean between pool features of the study's own extractor; it is not LPIPS and is not named so. LPIPS
    needs AlexNet's weights (see `lpips_at_hand`) and images of 64 px or more; else its column is absent. Images are
    taken a few at a time, so memory holds little more than the arrays given.
    """
    if images.shape != references.shape or not len(images):
        raise UserError(f"compared images have shapes {images.shape} and {references.shape}; expected equal ones")
    with_lpips = min(images.shape[1:3]) >= LPIPS_MIN_SIZE and lpips_at_hand()
    columns: dict[str, list[Tensor]] = {}
    for ours, theirs in zip(_slices(images), _slices(references), strict=True):
        a, b = _channels_first(ours), _channels_first(theirs)
        found = {"psnr": 10 * torch.log10(255.0**2 / (a - b).square().mean(dim=(1, 2, 3))), "ssim": _ssim(a, b)}
        if with_lpips:
            found["lpips"] = _lpips(a, b)
        if extractor is not None:
            features = [extractor(torch.from_numpy(np.array(part))).pool for part in (ours, theirs)]
            found["feature_distance"] = (features[0] - features[1]).norm(dim=1)
        for name, values in found.items():
            columns.setdefault(name, []).append(values)
    return pd.DataFrame({name: torch.cat(parts).double().numpy() for name, parts in columns.items()})


def lpips_at_hand() -> bool:
    """Whether AlexNet's weights lie in torch's hub cache, so that LPIPS needs no network.

    Raises UserError when the file there is damaged.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_BACKBONE
    if not path.is_file():
        return False
    expected = LPIPS_BACKBONE.removesuffix(".pth").rsplit("-", 1)[1]
    if not _sha256_of(path, path.stat().st_mtime_ns).startswith(expected):
        raise UserError(f"{path}: its SHA-256 does not start with {expected}; fetch it again")
    return True


@functools.cache
def _sha256_of(path: Path, mtime_ns: int) -> str:
    """Of a file as it was written last: pictures are compared prompt by prompt, and it is asked for each time."""
    return sha256(path)


@functools.cache
def _lpips_metric() -> Any:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity("alex", reduction="none")


@torch.no_grad()
def _lpips(a: Float[Tensor, "n 3 height width"], b: Float[Tensor, "n 3 height width"]) -> Float[Tensor, " n"]:
    """LPIPS 0.1 with AlexNet."""
    metric = _lpips_metric()
    metric.reset()
    metric.update(a.float() / 127.5 - 1, b.float() / 127.5 - 1)
    return metric.compute().reshape(len(a))


def _ssim(a: Float[Tensor, "b 3 height width"], b: Float[Tensor, "b 3 height width"]) -> Float[Tensor, " b"]:
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = structural_similarity_index_measure(a, b, data_range=255.0, reduction="none")
    assert isinstance(values, Tensor)
    return values.reshape(len(a))


def _channels_first(
    images: UInt8[np.ndarray, "n height width 3"],
) -> Float[Tensor, "n 3 height width"]:
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).double()


def _slices(array: np.ndarray) -> list[np.ndarray]:
    """Of at most 64 images and some two million pixels: in double precision, with SSIM's own, half a gigabyte."""
    size = max(1, min(64, MOST_PIXELS // (array.shape[1] * array.shape[2])))
    return [array[start : start + size] for start in range(0, len(array), size)]
