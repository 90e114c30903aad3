"""The autoencoder between images and latents: a small AutoencoderKL trained here, or a pretrained one of diffusers.

Both are modules with `encode(x).latent_dist` (mean, std), `decode(z).sample` and `config["scaling_factor"]`.
"""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from stablevelocity.errors import UserError
from stablevelocity.files import read_json, sha256
from stablevelocity.models.pixels import psnr, to_uint8, to_unit_range
from stablevelocity.models.small_autoencoder import SmallAutoencoder, load_small_autoencoder
from stablevelocity.models.train_small import train_small
from stablevelocity.models.weight_files import check_finite, reading_weights

#: A SmallAutoencoder or a `diffusers.AutoencoderKL`, whose import takes 11 s and so stands where one is loaded.
AnyAutoencoder: TypeAlias = Any


def train_autoencoder(
    images: UInt8[np.ndarray, "n height width 3"],
    *,
    widths: list[int],
    channels: int,
    steps: int,
    batch: int,
    lr: float,
    kl_weight: float,
    seed: int,
) -> SmallAutoencoder:
    """Train a small autoencoder.

    Loss: mean squared error in [-1, 1] plus `kl_weight` times the mean KL divergence per latent value.
    Afterwards mean and standard deviation per latent channel, measured on `images`, are folded into the two
    1x1 convolutions beside the latents, so that latents have mean 0 and variance 1 and scaling_factor is 1.
    """
    torch.manual_seed(seed)
    model = SmallAutoencoder(widths=widths, channels=channels, side=images.shape[1])
    pixels = torch.from_numpy(np.asarray(images))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        x = to_unit_range(pixels[torch.randint(len(pixels), (batch,), generator=generator)])
        posterior = model.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        reconstruction = model.decode(posterior.mean + posterior.std * noise).sample
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1.0 - posterior.logvar).mean()
        return F.mse_loss(reconstruction, x) + kl_weight * kl

    advice = f"lower autoencoder.lr (now {lr})"
    train_small("autoencoder", model, loss, optimizer, schedule, steps=steps, advice=advice)
    mean, std = encode_images(model, images)
    second_moment = (mean.astype(np.float64) ** 2 + std.astype(np.float64) ** 2).mean((0, 2, 3))
    center = mean.astype(np.float64).mean((0, 2, 3))
    _standardise_latents(model, center, np.sqrt(second_moment - center**2))
    return model


@torch.no_grad()
def _standardise_latents(model: AnyAutoencoder, center: np.ndarray, spread: np.ndarray) -> None:
    """Fold z -> (z - center) / spread, per channel, into the convolutions around the latents; exact."""
    center_t, spread_t = torch.from_numpy(center).float(), torch.from_numpy(spread).float()
    channels = len(center)
    into, out = model.quant_conv, model.post_quant_conv
    into.weight[:channels] /= spread_t[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - center_t) / spread_t
    into.bias[channels:] -= 2.0 * spread_t.log()
    out.bias += (out.weight[:, :, 0, 0] * center_t).sum(1)
    out.weight *= spread_t[None, :, None, None]


def load_autoencoder(name: str | Path, revision: str | None = None) -> AnyAutoencoder:
    """Load an autoencoder in diffusers' format from a folder, or from the local hub cache at a pinned revision.

    Raises UserError when it is not on this machine, or not whole, or holds NaN; nothing is downloaded here.
    """
    folder = Path(name)
    if not folder.is_dir():
        model = _diffusers_autoencoder(name, revision)
    elif not (folder / "config.json").is_file():
        inside = f"; give {folder / 'vae'}" if (folder / "vae" / "config.json").is_file() else ""
        raise UserError(f"autoencoder {str(name)!r}: this folder has no config.json in diffusers' format{inside}")
    else:
        with reading_weights(folder, "autoencoder in diffusers' format"):
            model = load_small_autoencoder(folder) or _diffusers_autoencoder(name, None)
    check_finite(model.state_dict(), name)
    if model.config.get("latents_mean") is not None or model.config.get("latents_std") is not None:
        raise UserError(f"autoencoder {str(name)!r}: latents_mean and latents_std of its config.json are not supported")
    return model.eval().requires_grad_(False)


def _diffusers_autoencoder(name: str | Path, revision: str | None) -> AnyAutoencoder:
    from diffusers import AutoencoderKL

    try:
        loaded: Any = AutoencoderKL.from_pretrained(
            str(name), revision=revision, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except OSError:
        if Path(name).is_dir():
            raise
        at = f" --revision {revision}" if revision else ""
        raise UserError(
            f"autoencoder {str(name)!r}{at} is not on this machine; fetch it with `stablevelocity download {name}{at}`"
        ) from None
    # diffusers leaves what the file lacks at random values, with a warning.
    model, info = loaded
    unset = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
    if unset:
        raise UserError(f"autoencoder {str(name)!r}: its weights lack {len(unset)} tensors, {unset[0]} among them")
    return model


def _shift(model: AnyAutoencoder) -> float:
    """What published latents are lowered by before they are scaled (`shift_factor`)."""
    return model.config.get("shift_factor") or 0.0


@torch.no_grad()
def encode_images(
    model: AnyAutoencoder, images: UInt8[np.ndarray, "n height width 3"], batch: int = 64
) -> tuple[Float[np.ndarray, "n c h w"], Float[np.ndarray, "n c h w"]]:
    """Mean (less the autoencoder's shift) and standard deviation of each image's posterior, unscaled, float32.

    `images` may be a memory map; it is read batch by batch.
    """
    device = model.device
    means, stds = [], []
    for start in range(0, len(images), batch):
        x = to_unit_range(torch.from_numpy(np.array(images[start : start + batch])).to(device))
        posterior = model.encode(x.to(model.dtype)).latent_dist
        means.append((posterior.mean.float() - _shift(model)).cpu().numpy())
        stds.append(posterior.std.float().cpu().numpy())
    return np.concatenate(means), np.concatenate(stds)


@torch.no_grad()
def decode_latents(
    model: AnyAutoencoder, latents: Float[Tensor, "batch c h w"], scale: float
) -> UInt8[Tensor, "batch height width 3"]:
    """Images of scaled latents (what the network generates) through the decoder."""
    unscaled = latents / scale + _shift(model)
    return to_uint8(model.decode(unscaled.to(model.device, model.dtype)).sample)


def reconstruction_psnr(model: AnyAutoencoder, images: UInt8[np.ndarray, "n height width 3"]) -> float:
    """Peak signal-to-noise ratio in dB of decoded posterior means, over all pixels of `images`."""
    mean, _ = encode_images(model, images)
    squared = 0.0
    for start in range(0, len(images), 64):
        decoded = decode_latents(model, torch.from_numpy(mean[start : start + 64]), 1.0).cpu().numpy()
        squared += float(((decoded.astype(np.float64) - images[start : start + 64]) ** 2).sum())
    return float(psnr(torch.tensor(squared / images.size, dtype=torch.float64), 255.0))


def autoencoder_identity(name: str | Path, revision: str | None) -> str:
    """What names an autoencoder in manifests: `id@revision`, or the hash of a folder's weights."""
    folder = Path(name)
    if not folder.is_dir():
        return f"{name}@{revision}"
    digest = sha256(folder / "diffusion_pytorch_model.safetensors")
    return f"{read_json(folder / 'config.json')['_class_name']}:sha256:{digest[:16]}"
