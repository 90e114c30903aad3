"""The formulas of the paper as one would first write them: every difference x_t - alpha x_k in an array.

This is the form that the library is measured against, in the dtype of its inputs.
"""

import torch
from torch import Tensor

from stablevelocity.interpolants import LinearPath

PATH = LinearPath()


def stablevm_target(x_t: Tensor, t: Tensor, references: Tensor) -> Tensor:
    """sum_k w_k v_t(x_t | x_0^k) (docs/paper.md#stablevm) for x_t (B, d), t (B,), references (B, n, d)."""
    alpha, sigma, alpha_dot, sigma_dot = (c[:, None] for c in PATH.coefficients(x_t, t))
    differences = x_t[:, None] - alpha * references
    weights = torch.softmax(-differences.square().sum(-1) / (2 * sigma[..., 0] ** 2), dim=1)
    velocities = sigma_dot / sigma * differences + alpha_dot * references
    return (weights[:, :, None] * velocities).sum(1)


def variance(samples: Tensor, x_t: Tensor, x0: Tensor, t: float, rows: int) -> Tensor:
    """|| v_t(x_t | x_0) - v_t(x_t) ||^2 for all samples (docs/paper.md#variance), `rows` of x_t at a time."""
    alpha, sigma = 1 - t, t
    parts = []
    for x, own in zip(x_t.split(rows), x0.split(rows), strict=True):
        differences = x[:, None] - alpha * samples[None]
        weights = torch.softmax(-differences.square().sum(-1) / (2 * sigma**2), dim=1)
        mean = (weights[:, :, None] * samples[None]).sum(1)
        parts.append(((own - mean) / sigma).square().sum(-1))
    return torch.cat(parts)


class ListBank:
    """A bank as a list of tensors, one per class; a new sample is joined to the end and the oldest cut off."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = list(rows.unbind())

    def insert(self, x: Tensor, labels: Tensor) -> None:
        for label in labels.unique().tolist():
            new = x[labels == label]
            self.rows[label] = torch.cat([self.rows[label], new])[len(new) :]


class LoopBank:
    """A bank as one tensor of rings, written sample by sample."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.heads = torch.zeros(len(rows), dtype=torch.int64)

    def insert(self, x: Tensor, labels: Tensor) -> None:
        for row, label in zip(x, labels, strict=True):
            self.rows[label, self.heads[label]] = row
            self.heads[label] = (self.heads[label] + 1) % self.rows.shape[1]
