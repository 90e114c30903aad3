"""The closed-form step of the low-variance regime on the linear path (docs/paper.md#stablevs)."""

import math

import torch
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor


def closed_form_step(
    x: Float[Tensor, "batch *shape"],
    velocity: Float[Tensor, "batch *shape"],
    sigma: Float[Tensor, ""],
    sigma_next: Float[Tensor, ""],
    *,
    noise_factor: float,
    generator: torch.Generator | list[torch.Generator] | None = None,
) -> Float[Tensor, "batch *shape"]:
    """From noise level t = `sigma` to tau = `sigma_next` in one step, as if the posterior had one mode.

    On the linear path (alpha = 1 - t, sigma = t) the general solution in docs/paper.md#stablevs reads, with
    x0 = x - t v the posterior mean, f the noise factor and rho = (tau/t) sqrt(1 - f^2):

        x_tau = rho x + (1 - tau - (1 - t) rho) x0 + f tau eps.

    With f = 0 that is x + (tau - t) v, the Euler step; with f = 1 it draws all noise anew.
    """
    if noise_factor == 0:
        return x + (sigma_next - sigma) * velocity
    rho = sigma_next / sigma * math.sqrt(1 - noise_factor**2)
    mean = rho * x + (1 - sigma_next - (1 - sigma) * rho) * (x - sigma * velocity)
    noise = randn_tensor(tuple(x.shape), generator=generator, device=x.device, dtype=x.dtype)
    return mean + noise_factor * sigma_next * noise
