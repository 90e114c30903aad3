"""The layers of SiT: what is embedded, and a transformer block whose norms are set by time and class (adaLN-zero).

Attributes that hold weights have the names of published checkpoints (sit.py); sizes are (batch, tokens, width).
"""

import math
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

FREQUENCY_FEATURES = 256
Tokens: TypeAlias = Float[Tensor, "batch tokens width"]


def position_table(width: int, grid: int) -> Float[Tensor, "1 tokens width"]:
    """Fixed 2-D sine-cosine positions of a square grid, row by row.

    The first half of the channels encodes the column, the second half the row; within each, sines come
    before cosines (docs/paper.md#checkpoints).
    """
    quarter = width // 4
    frequencies = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.outer(torch.arange(grid, dtype=torch.float64), frequencies)
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns = line[None, :, :].expand(grid, grid, -1)
    rows = line[:, None, :].expand(grid, grid, -1)
    return torch.cat([columns, rows], dim=2).reshape(1, grid * grid, width).float()


def time_features(t: Float[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
    """256 features of t in [0, 1] (unscaled): cosines, then sines, of 10000^(-i/128) t, in float32."""
    half = FREQUENCY_FEATURES // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(steps * (-math.log(10000.0) / half))
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def modulate(x: Tokens, shift: Float[Tensor, "batch 1 width"], scale: Float[Tensor, "batch 1 width"]) -> Tokens:
    """adaLN: parameter-free LayerNorm (eps 1e-6), then x (1 + scale) + shift, in one pass over x."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


class TimeEmbedder(nn.Module):
    """Linear-SiLU-Linear on the time features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCY_FEATURES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Float[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        return self.mlp(time_features(t).to(next(self.mlp.parameters()).dtype))


class LabelEmbedder(nn.Module):
    """A table of num_classes + 1 rows; the last is the null class."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, y: Int[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        return self.embedding_table(y)


def _modulation(width: int, chunks: int) -> nn.Sequential:
    """The adaLN layer; its SiLU is applied once for all blocks by the caller and kept here for the name."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, chunks * width))


class PatchEmbedding(nn.Module):
    """A linear map of each square patch to a token, row by row."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch tokens embedding"]:
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention; one linear layer gives queries, keys and values, in this order."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tokens) -> Tokens:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Linear, GELU (its tanh form), linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tokens) -> Tokens:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """Transformer block with adaLN-zero; chunks: shift, scale, gate of attention, then of the MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.mlp = Mlp(width, 4 * width)
        self.adaLN_modulation = _modulation(width, 6)

    def forward(self, x: Tokens, activated: Float[Tensor, "batch width"]) -> Tokens:
        chunks = self.adaLN_modulation[1](activated).unsqueeze(1).chunk(6, dim=-1)
        shift_attention, scale_attention, gate_attention, shift_mlp, scale_mlp, gate_mlp = chunks
        x = torch.addcmul(x, gate_attention, self.attn(modulate(x, shift_attention, scale_attention)))
        return torch.addcmul(x, gate_mlp, self.mlp(modulate(x, shift_mlp, scale_mlp)))


class FinalLayer(nn.Module):
    """adaLN, then a linear map of each token to its patch; for REG one more from the class token."""

    def __init__(self, width: int, patch_outputs: int, class_dim: int | None) -> None:
        super().__init__()
        self.linear = nn.Linear(width, patch_outputs)
        self.linear_class = None if class_dim is None else nn.Linear(width, class_dim)
        self.adaLN_modulation = _modulation(width, 2)

    def forward(self, x: Tokens, activated: Float[Tensor, "batch width"]) -> tuple[Tensor, Tensor | None]:
        shift, scale = self.adaLN_modulation[1](activated).unsqueeze(1).chunk(2, dim=-1)
        x = modulate(x, shift, scale)
        if self.linear_class is None:
            return self.linear(x), None
        return self.linear(x[:, 1:]), self.linear_class(x[:, 0])
