"""What the StableVM target adds to a training step of the network that it is for."""

from typing import NamedTuple

import torch

from benchmarks.measuring import median_seconds
from stablevelocity.interpolants import LinearPath
from stablevelocity.models.sit import build_sit
from stablevelocity.reference_bank import ReferenceBank

CLASSES, CAPACITY, SHAPE = 1000, 256, (4, 32, 32)


class Step(NamedTuple):
    """Seconds of a forward and backward pass of the network, of bank insertion and target, and their ratio; bytes
    of references per second that the target read, beside those of a device copy (read and write counted)."""

    model: str
    batch: int
    dtype: str
    network: float
    insertion: float
    target: float
    share: float
    target_bandwidth: float
    copy_bandwidth: float


def measure() -> Step:
    """SiT-XL/2 at batch 256 in bfloat16 on a CUDA device; without one SiT-B/2 at batch 8 in float32 on the CPU.

    The optimizer is left out: the share is an upper bound. Every label is another class where the batch allows it.
    """
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    name, batch, rounds = ("SiT-XL/2", 256, 5) if cuda else ("SiT-B/2", 8, 3)
    classes = CLASSES if cuda else 100
    g = torch.Generator().manual_seed(0)
    model = build_sit(name, input_size=32).to(device)
    bank = ReferenceBank(classes, CAPACITY, SHAPE, torch.float16, device)
    for label in range(classes):
        bank.insert(torch.randn(CAPACITY, *SHAPE, generator=g).to(device), torch.full((CAPACITY,), label).to(device))
    labels = torch.randperm(classes, generator=g)[:batch].to(device)
    t = (0.5 + 0.5 * torch.rand(batch, generator=g)).to(device)
    x0 = bank.pick(labels, torch.rand(batch, generator=g).to(device))
    x_t = LinearPath().interpolate(x0, torch.randn(x0.shape, generator=g).to(device), t)

    def network() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=cuda):
            velocity = model.velocity(x_t, t, labels)
        (velocity.float() - x_t).square().mean().backward()

    network_seconds = median_seconds(network, rounds)
    insertion = median_seconds(lambda: bank.insert(x0, labels), rounds)
    target = median_seconds(lambda: bank.target(x_t, t, labels, LinearPath()), rounds)
    buffer = torch.zeros(2**29 if cuda else 2**26, dtype=torch.uint8, device=device)
    copy = median_seconds(buffer.clone, rounds)
    read = batch * CAPACITY * x_t[0].numel() * 2
    share = (insertion + target) / network_seconds
    dtype = "bfloat16 autocast" if cuda else "float32"
    bandwidths = read / target, 2 * buffer.numel() / copy
    return Step(f"{name} on {device}", batch, dtype, network_seconds, insertion, target, share, *bandwidths)
