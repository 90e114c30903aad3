"""Pictures as numbers, and errors between them."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def to_unit_range(images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3 height width"]:
    """uint8 NHWC to float32 NCHW in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def to_uint8(images: Float[Tensor, "batch 3 height width"]) -> UInt8[Tensor, "batch height width 3"]:
    """[-1, 1] NCHW to uint8 NHWC, rounded to nearest; values outside the range saturate."""
    return ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def psnr(squared_error: Float[Tensor, "*pictures"], data_range: float) -> Float[Tensor, "*pictures"]:
    """Peak signal-to-noise ratio in dB of a mean squared error between values that span `data_range`."""
    return 10 * torch.log10(data_range**2 / squared_error)
