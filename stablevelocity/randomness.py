"""Every draw of a training step, from generators seeded by (seed, step): no rank, no history.

A draw is made for the global batch and sliced per process, so a run is the same on any number of processes,
and a resumed run continues as if it had never stopped.
"""

import functools
import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def generator(seed: int, step: int, stream: str) -> torch.Generator:
    """A CPU generator of its own for each (seed, step, stream)."""
    digest = hashlib.blake2b(f"{seed}/{step}/{stream}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, size: int) -> Int[Tensor, " size"]:
    """Rows of the data set in the order in which an epoch reads them."""
    return torch.randperm(size, generator=generator(seed, epoch, "order"))


def data_indices(seed: int, step: int, batch: int, size: int) -> Int[Tensor, " batch"]:
    """Rows of the data set for a step (counted from 0): epochs are permutations, each read to its end.

    A batch may span two epochs, so no row is dropped and every row is seen once per epoch.
    """
    positions = torch.arange(step * batch, (step + 1) * batch)
    epochs = positions // size
    parts = [(int(epoch), positions[epochs == epoch] % size) for epoch in torch.unique(epochs)]
    return torch.cat([epoch_order(seed, epoch, size)[rows] for epoch, rows in parts])


@dataclass
class Draws:
    """The random numbers of one step, for the global batch of size B."""

    indices: Int[Tensor, " B"]  # rows of the data set
    posterior_noise: Float[Tensor, "B c h w"]  # of the autoencoder's posterior
    noise: Float[Tensor, "B c h w"]  # eps of the path
    t: Float[Tensor, " B"]  # uniform in (0, 1)
    dropped: Bool[Tensor, " B"]  # label replaced by the null class
    labels: Int[Tensor, " B"]  # uniform labels of StableVM, null class included
    pick: Float[Tensor, " B"]  # uniform in [0, 1): which reference is noised


def draw(
    seed: int, step: int, *, batch: int, size: int, shape: tuple[int, int, int], num_classes: int, label_drop: float
) -> Draws:
    """All draws of step `step`. The null class is `num_classes`."""

    def stream(name: str) -> torch.Generator:
        return generator(seed, step, name)

    dropped = torch.rand(batch, generator=stream("drop")) < label_drop
    labels = torch.randint(num_classes, (batch,), generator=stream("labels"))
    return Draws(
        indices=data_indices(seed, step, batch, size),
        posterior_noise=torch.randn(batch, *shape, generator=stream("posterior")),
        noise=torch.randn(batch, *shape, generator=stream("noise")),
        # Centred in its cell, never 0 or 1: at t = 0 the conditional velocity is not defined.
        t=(torch.randint(2**23, (batch,), generator=stream("t")).float() + 0.5) / 2**23,
        dropped=dropped,
        labels=torch.where(dropped, num_classes, labels),
        pick=torch.rand(batch, generator=stream("pick")),
    )
