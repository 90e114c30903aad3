"""How close short runs come to a long run from the same noise: PSNR, SSIM, LPIPS, feature distance (PAPER: section
5)."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from stablevelocity.errors import UserError
from stablevelocity.evaluation.features import Extractor
from stablevelocity.files import sha256

LPIPS_BACKBONE = "alexnet-owt-7be5be79.pth"
"""Torchvision's AlexNet; the end of the name is the start of its SHA-256. torchmetrics ships the rest of LPIPS."""
LPIPS_MIN_SIZE = 64
"""Below this AlexNet's pooling leaves nothing of the deeper feature maps."""


def compare_images(
    images: UInt8[np.ndarray, "n height width 3"],
    references: UInt8[np.ndarray, "n height width 3"],
    *,
    extractor: Extractor | None = None,
    lpips_weights: Path | None = None,
) -> pd.DataFrame:
    """One row per pair: psnr (dB), ssim, and where they can be had lpips and `<extractor>_feature_distance`.

    PSNR is over all pixels and channels with peak 255, infinite for equal images. SSIM is Wang et al.'s with an
    11-pixel Gaussian window, per channel, then averaged. The feature distance is Euclidean between pool
    features of the study's own extractor; it is not LPIPS and is not named so. `lpips_weights` as found by
    `find_lpips_weights`; without it the column is absent.
    """
    if images.shape != references.shape or not len(images):
        raise UserError(f"compared images have shapes {images.shape} and {references.shape}; expected equal ones")
    a, b = _channels_first(images), _channels_first(references)
    squared = (a - b).square().mean(dim=(1, 2, 3))
    columns: dict[str, Tensor] = {
        "psnr": 10 * torch.log10(255.0**2 / squared),
        "ssim": _batched(_ssim, a, b),
    }
    if lpips_weights is not None and min(images.shape[1:3]) >= LPIPS_MIN_SIZE:
        columns["lpips"] = _batched(_Lpips(lpips_weights), a, b)
    if extractor is not None:
        features = [
            torch.cat([extractor(torch.from_numpy(np.array(part))).pool for part in _slices(array)])
            for array in (images, references)
        ]
        columns[f"{extractor.name}_feature_distance"] = (features[0] - features[1]).norm(dim=1)
    return pd.DataFrame({name: values.double().numpy() for name, values in columns.items()})


def find_lpips_weights(folder: Path | str | None = None) -> Path | None:
    """The AlexNet file of LPIPS in `folder` (torch's hub cache by default), if it is there and whole."""
    path = Path(folder or Path(torch.hub.get_dir()) / "checkpoints") / LPIPS_BACKBONE
    if not path.is_file():
        return None
    expected = LPIPS_BACKBONE.removesuffix(".pth").rsplit("-", 1)[1]
    if not sha256(path).startswith(expected):
        raise UserError(f"{path}: its SHA-256 does not start with {expected}; fetch it again")
    return path


class _Lpips:
    """LPIPS with AlexNet, from torchmetrics, with the backbone read from a file."""

    def __init__(self, weights: Path):
        from torchmetrics.functional.image.lpips import _LPIPS

        self.network = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
        state = torch.load(weights, map_location="cpu", weights_only=True)
        slices = [getattr(self.network.net, f"slice{k}") for k in range(1, 6)]
        for part in slices:
            for index, layer in part.named_children():
                if f"features.{index}.weight" in state:
                    layer.load_state_dict({name: state[f"features.{index}.{name}"] for name in ("weight", "bias")})
        self.network.eval()

    @torch.no_grad()
    def __call__(
        self, a: Float[Tensor, "b 3 height width"], b: Float[Tensor, "b 3 height width"]
    ) -> Float[Tensor, " b"]:
        return self.network(a.float() / 127.5 - 1, b.float() / 127.5 - 1).flatten()


def _ssim(a: Float[Tensor, "b 3 height width"], b: Float[Tensor, "b 3 height width"]) -> Float[Tensor, " b"]:
    values = structural_similarity_index_measure(a, b, data_range=255.0, reduction="none")
    assert isinstance(values, Tensor)
    return values.reshape(len(a))


def _channels_first(
    images: UInt8[np.ndarray, "n height width 3"],
) -> Float[Tensor, "n 3 height width"]:
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).double()


def _slices(array: np.ndarray, size: int = 64) -> list[np.ndarray]:
    return [array[start : start + size] for start in range(0, len(array), size)]


def _batched(measure, a: Tensor, b: Tensor, size: int = 64) -> Tensor:
    return torch.cat([measure(x, y) for x, y in zip(a.split(size), b.split(size), strict=True)])
