"""The small AutoencoderKL in plain torch: importing diffusers' own takes 11 s, more than a job of a small study works.

Weights, names, files and results are those of `diffusers.AutoencoderKL` with one residual block a level and no
attention, bit for bit; diffusers loads what is saved here, and the other way round.
"""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from stablevelocity.files import atomic_write, read_json, write_json


class Gaussian(NamedTuple):
    """The posterior of latents, independent in each value."""

    mean: Float[Tensor, "batch c h w"]
    logvar: Float[Tensor, "batch c h w"]

    @property
    def std(self) -> Float[Tensor, "batch c h w"]:
        return torch.exp(0.5 * self.logvar)

    @property
    def var(self) -> Float[Tensor, "batch c h w"]:
        return torch.exp(self.logvar)


class Encoded(NamedTuple):
    latent_dist: Gaussian


class Decoded(NamedTuple):
    sample: Float[Tensor, "batch 3 height width"]


class SmallAutoencoder(nn.Module):
    """Images (batch, 3, side, side) in [-1, 1] to latents, and back.

    `widths` of the levels: the side is halved after each but the last. `channels` of the latents. The methods are
    those of `diffusers.AutoencoderKL` that this project calls.
    """

    def __init__(self, *, widths: list[int], channels: int, side: int) -> None:
        super().__init__()
        self.config = autoencoder_config(widths, channels, side)
        groups = self.config["norm_num_groups"]
        self.encoder = _Encoder(widths, channels, groups)
        self.decoder = _Decoder(widths, channels, groups)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)

    @property
    def device(self) -> torch.device:
        return self.quant_conv.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.quant_conv.weight.dtype

    def encode(self, x: Float[Tensor, "batch 3 height width"]) -> Encoded:
        mean, logvar = self.quant_conv(self.encoder(x)).chunk(2, dim=1)
        return Encoded(Gaussian(mean, logvar.clamp(-30.0, 20.0)))

    def decode(self, z: Float[Tensor, "batch c h w"]) -> Decoded:
        return Decoded(self.decoder(self.post_quant_conv(z)))

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `diffusion_pytorch_model.safetensors`, in diffusers' format."""
        with atomic_write(Path(folder) / "diffusion_pytorch_model.safetensors") as temporary:
            state = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
            save_file(state, temporary, {"format": "pt"})
        write_json(Path(folder) / "config.json", self.config)


def load_small_autoencoder(folder: Path) -> SmallAutoencoder | None:
    """The autoencoder in `folder`; None where its `config.json` describes another architecture."""
    config = read_json(folder / "config.json")
    try:
        widths, channels, side = config["block_out_channels"], config["latent_channels"], config["sample_size"]
        expected = autoencoder_config(widths, channels, side)
    except (KeyError, TypeError):
        return None
    if any(config.get(key) != value for key, value in expected.items()):
        return None
    model = SmallAutoencoder(widths=widths, channels=channels, side=side)
    model.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    return model


def autoencoder_config(widths: list[int], channels: int, side: int) -> dict[str, Any]:
    """What diffusers builds the same network from."""
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "in_channels": 3,
        "latent_channels": channels,
        "layers_per_block": 1,
        "mid_block_add_attention": False,
        "norm_num_groups": math.gcd(8, *widths),
        "out_channels": 3,
        "sample_size": side,
        "scaling_factor": 1.0,
        "shift_factor": None,
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "use_post_quant_conv": True,
        "use_quant_conv": True,
    }


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=1e-6)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        change = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        if self.conv_shortcut is not None:
            # Memory layouts differ in the last bits of a convolution; diffusers changes this one while training.
            x = self.conv_shortcut(x.contiguous() if self.training else x)
        return x + change


class _Halve(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class _Double(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous() if len(x) >= 64 else x  # the other layout that diffusers changes
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Level(nn.ModuleDict):
    """Residual blocks from each of `widths` to the next, then a change of the side; names are diffusers'."""

    def __init__(self, widths: list[int], groups: int, **resample: type[nn.Module]) -> None:
        super().__init__()
        self["resnets"] = nn.ModuleList(_Residual(inputs, outputs, groups) for inputs, outputs in pairwise(widths))
        for name, layer in resample.items():
            self[name] = nn.ModuleList([layer(widths[-1])])

    def forward(self, x: Tensor) -> Tensor:
        for layers in self.values():
            for layer in cast(nn.ModuleList, layers):
                x = layer(x)
        return x


class _Encoder(nn.Module):
    def __init__(self, widths: list[int], channels: int, groups: int) -> None:
        super().__init__()
        first, last = widths[0], widths[-1]
        self.conv_in = nn.Conv2d(3, first, 3, padding=1)
        halving = [_Level([a, b], groups, downsamplers=_Halve) for a, b in pairwise([first, *widths[:-1]])]
        self.down_blocks = nn.ModuleList([*halving, _Level([widths[-2:][0], last], groups)])
        self.mid_block = _Level([last] * 3, groups)
        self.conv_norm_out = nn.GroupNorm(groups, last, eps=1e-6)
        self.conv_out = nn.Conv2d(last, 2 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class _Decoder(nn.Module):
    def __init__(self, widths: list[int], channels: int, groups: int) -> None:
        super().__init__()
        first, last = widths[0], widths[-1]
        self.conv_in = nn.Conv2d(channels, last, 3, padding=1)
        # Weights are drawn in one order and listed (for the norm of the gradient) in another, both as diffusers does.
        self.up_blocks = nn.ModuleList()
        self.mid_block = _Level([last] * 3, groups)
        for inputs, outputs in pairwise([last, *widths[:0:-1]]):
            self.up_blocks.append(_Level([inputs, outputs, outputs], groups, upsamplers=_Double))
        self.up_blocks.append(_Level([widths[:2][-1], first, first], groups))
        self.conv_norm_out = nn.GroupNorm(groups, first, eps=1e-6)
        self.conv_out = nn.Conv2d(first, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(z))
        for level in self.up_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))
