"""Errors between pictures."""

import torch
from jaxtyping import Float
from torch import Tensor


def psnr(squared_error: Float[Tensor, "*pictures"], data_range: float) -> Float[Tensor, "*pictures"]:
    """Peak signal-to-noise ratio in dB of a mean squared error between values that span `data_range`."""
    return 10 * torch.log10(data_range**2 / squared_error)
