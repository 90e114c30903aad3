"""Does StableVM differ from the stable target field? Bias and variance of both, with confidence intervals."""

import math
from typing import NamedTuple

import torch

from stablevelocity.gmm import paper_mixture
from stablevelocity.interpolants import LinearPath
from stablevelocity.targets import stablevm_target, stf_target

DIMENSION, DRAWS = 10, 40_000


class Difference(NamedTuple):
    """Per cent, with the half-width of the 95 % interval. `bias` of each: the target's regression on the closed-form
    velocity, less 1. `difference`: STF's variance over StableVM's, less 1."""

    t: float
    count: int
    stablevm_bias: tuple[float, float]
    stf_bias: tuple[float, float]
    variance: tuple[float, float]
    difference: tuple[float, float]


def measure(t: float, count: int) -> Difference:
    """Independent draws for the two, so that the interval of the difference is that of two samples."""
    mixture, path = paper_mixture(DIMENSION), LinearPath()
    biases, variances, errors = [], [], []
    for seed, (target, first) in enumerate(((stablevm_target, False), (stf_target, True))):
        g = torch.Generator().manual_seed(1000 * count + seed)
        references = mixture.sample(DRAWS * count, g).reshape(DRAWS, count, DIMENSION)
        index = torch.zeros(DRAWS, dtype=torch.int64) if first else torch.randint(0, count, (DRAWS,), generator=g)
        noise = torch.randn(DRAWS, DIMENSION, dtype=torch.float64, generator=g)
        x_t = path.interpolate(references[torch.arange(DRAWS), index], noise, t)
        velocity, value = mixture.velocity(x_t, t, path), target(x_t, t, references, path)
        inner, square = (value * velocity).sum(1), velocity.square().sum(1)
        ratio = inner.sum() / square.sum()
        error = (inner - ratio * square).std() / math.sqrt(DRAWS) / square.mean()
        biases.append((100 * (float(ratio) - 1), 196 * float(error)))
        spread = (value - velocity).square().sum(1)
        variances.append(float(spread.mean()))
        errors.append(float(spread.std()) / math.sqrt(DRAWS) / variances[-1])
    difference = 100 * (variances[1] / variances[0] - 1), 196 * math.hypot(*errors)
    return Difference(t, count, biases[0], biases[1], (variances[0], variances[1]), difference)


def table() -> list[Difference]:
    return [measure(t, count) for t in (0.5, 0.7, 0.9) for count in (2, 8, 32, 128)]
