"""The network of the toy experiment, many at once: one per run, their parameters stacked (docs/paper.md#toy).

A single network of 14,634 parameters leaves a processor idle between small products. Stacked along a first
axis, all runs of the experiment are a few batched products, and none of them sees another.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

WIDTH = 32
BLOCKS = 4
DROPOUT = 0.1

Parameters = dict[str, Tensor]


def time_features(t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape 32"]:
    """sin, then cos, of 2 pi t 1000^(-i/16), i = 0..15."""
    frequencies = 1000.0 ** (-torch.arange(WIDTH // 2, device=t.device, dtype=t.dtype) / (WIDTH // 2))
    angles = 2 * math.pi * t[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)


def initial_parameters(dimension: int, generator: torch.Generator) -> Parameters:
    """One network, without the axis of runs. Linear layers U(-1, 1)/sqrt(inputs); the modulation is zero."""

    def linear(inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
        bound = 1 / math.sqrt(inputs)
        weight = torch.rand(inputs, outputs, generator=generator) * 2 * bound - bound
        return weight, torch.rand(outputs, generator=generator) * 2 * bound - bound

    parameters: Parameters = {}
    parameters["input.weight"], parameters["input.bias"] = linear(dimension + WIDTH, WIDTH)
    for block in range(BLOCKS):
        parameters[f"{block}.norm.weight"], parameters[f"{block}.norm.bias"] = torch.ones(WIDTH), torch.zeros(WIDTH)
        parameters[f"{block}.modulation.weight"] = torch.zeros(WIDTH, 2 * WIDTH)
        parameters[f"{block}.modulation.bias"] = torch.zeros(2 * WIDTH)
        parameters[f"{block}.weight"], parameters[f"{block}.bias"] = linear(WIDTH, WIDTH)
    parameters["output.weight"], parameters["output.bias"] = linear(WIDTH, dimension)
    return parameters


def stack(networks: list[Parameters]) -> Parameters:
    """Networks of one shape under a first axis of runs."""
    return {name: torch.stack([network[name] for network in networks]) for name in networks[0]}


def velocities(
    parameters: Parameters,
    x: Float[Tensor, "runs batch dimension"],
    features: Float[Tensor, "runs batch 32"],
    dropout: Float[Tensor, "blocks runs batch 32"] | None = None,
) -> Float[Tensor, "runs batch dimension"]:
    """Velocity of run r's network at x[r]. `dropout` holds the factors of each block's units (0 or 1/0.9)."""

    def linear(name: str, inputs: Tensor) -> Tensor:
        return torch.baddbmm(parameters[f"{name}bias"][:, None], inputs, parameters[f"{name}weight"])

    hidden = linear("input.", torch.cat([features, x], -1))
    for block in range(BLOCKS):
        shift, scale = linear(f"{block}.modulation.", features).chunk(2, -1)
        weight, bias = parameters[f"{block}.norm.weight"][:, None], parameters[f"{block}.norm.bias"][:, None]
        normal = functional.layer_norm(hidden, (WIDTH,)) * weight + bias
        hidden = functional.gelu(linear(f"{block}.", normal * (1 + scale) + shift))
        if dropout is not None:
            hidden = hidden * dropout[block]
    return linear("output.", hidden)


def dropout_factors(runs: int, batch: int, generator: torch.Generator) -> Float[Tensor, "blocks runs batch 32"]:
    """0 with probability 0.1, else 1/0.9."""
    kept = torch.rand(BLOCKS, runs, batch, WIDTH, generator=generator) >= DROPOUT
    return kept / (1 - DROPOUT)
