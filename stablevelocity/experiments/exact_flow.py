"""StableVS on velocities that are known: where it helps, and what decides that (docs/findings.md).

The data are mixtures of many Gaussians of one covariance in classes, so the velocity, with guidance too, has a closed
form and no network's error plays a part. Each arm starts from the same noise, as a pipeline does: Euler, DPM-Solver++
or UniPC with shift 3, the long run of 30 steps, StableVS and its control arm thinned from it, and the base solver with
as many calls as StableVS.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stablevelocity import randomness
from stablevelocity.experiments.scheduler_accuracy import SCHEDULERS, SHIFT, integrate
from stablevelocity.progress import Progress
from stablevelocity.sampling.grid import uniform_times
from stablevelocity.sampling.solvers import heun
from stablevelocity.study.experiment_settings import ExactFlow


@dataclass(frozen=True, eq=False)
class ClassMixture:
    """Equal Gaussians N(mu_k, diag(S)) of one covariance, each of a class; float64, on the linear path.

    `gmm.GaussianMixture` has a covariance for each component, at the price of arrays (K, d) at every call.
    """

    means: Float[Tensor, "modes d"]
    variance: Float[Tensor, " d"]
    classes: Int[Tensor, " modes"]

    @classmethod
    def draw(cls, d: int, exponent: float, spread: float, modes: int, classes: int, seed: int) -> "ClassMixture":
        """Coordinate k has standard deviation ~ k^-`exponent`, mean square 1 over k, of which the share `spread`^2 of
        the variance is within the modes.
        """
        deviation = torch.arange(1, d + 1, dtype=torch.float64) ** -exponent
        deviation /= deviation.square().mean().sqrt()
        generator = randomness.generator(seed, 0, "exact flow means")
        normal = torch.randn(modes, d, generator=generator, dtype=torch.float64)
        means = normal * deviation * math.sqrt(1 - spread**2)
        return cls(means, (spread * deviation).square(), torch.arange(modes) % classes)

    def log_weights(self, x: Float[Tensor, "n d"], t: float) -> Float[Tensor, "n modes"]:
        """log p(mode | x_t), up to a constant for each x_t."""
        precision = 1 / ((1 - t) ** 2 * self.variance + t**2)
        products = (x * precision) @ self.means.T
        return (1 - t) * products - (1 - t) ** 2 / 2 * (self.means.square() @ precision)

    def mode(self, x: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """The most probable mode of each x_0."""
        return self.log_weights(x, 0.0).argmax(1)

    def velocity(
        self, x: Float[Tensor, "n d"], t: float, labels: Int[Tensor, " n"] | None = None, guidance: float = 1.0
    ) -> Float[Tensor, "n d"]:
        """u + guidance (c - u), where u is the marginal velocity and c that of the class `labels`; c without guidance,
        u without labels.
        """
        logits = self.log_weights(x, t)
        weights = logits.softmax(1)
        if labels is not None:
            own = logits.masked_fill(self.classes != labels[:, None], -torch.inf).softmax(1)
            weights = weights + guidance * (own - weights)
        # Within a mode the velocity is -mu + slope (x - (1 - t) mu), the slope V'/(2V) the same in all of them.
        slope = (t - (1 - t) * self.variance) / ((1 - t) ** 2 * self.variance + t**2)
        return slope * x - (1 + (1 - t) * slope) * (weights @ self.means)


class Setting(NamedTuple):
    """What StableVS is compared under: base solver, split point, steps below it."""

    solver: str
    xi: float
    low_steps: int


def exact_flow_table(settings: ExactFlow) -> pd.DataFrame:
    """One row per mixture, seed, setting and arm.

    Columns: dimension, exponent, spread, guidance, seed; solver, xi, low_steps; arm (`base` has as many calls as
    `stablevs`; `control` is the base solver on its grid; `long` is the run that it thins) and calls; psnr_long and
    psnr_truth, in dB, mean over samples, to the long run of the same solver and to the true flow, the peak being the
    range of the true ends; flips_long and flips_truth, the share of samples that end at another mode than those.
    """
    mixtures = list(itertools.product(settings.dimensions, settings.exponents, settings.spreads))
    progress = Progress("exact flow", len(mixtures) * len(settings.guidance) * len(settings.seeds), "mixtures")
    rows = []
    for (d, exponent, spread), guidance, seed in itertools.product(mixtures, settings.guidance, settings.seeds):
        mixture = ClassMixture.draw(d, exponent, spread, settings.modes, settings.classes, seed)
        keys = {"dimension": d, "exponent": exponent, "spread": spread, "guidance": guidance, "seed": seed}
        plain = spread == settings.spreads[0] and guidance == settings.guidance[0]
        rows += [keys | row for row in _arms(settings, mixture, guidance, seed, plain=plain)]
        progress.update()
    return pd.DataFrame(rows)


def _arms(
    settings: ExactFlow, mixture: ClassMixture, guidance: float, seed: int, *, plain: bool
) -> Iterator[dict[str, Any]]:
    """Rows of one mixture: of all settings where `plain`, of the first alone elsewhere."""
    generator = randomness.generator(seed, 0, "exact flow noise")
    noise = torch.randn(settings.samples, len(mixture.variance), generator=generator)
    labels = torch.arange(settings.samples) % settings.classes

    def velocity(x: Tensor, t: float) -> Tensor:
        return mixture.velocity(x, t, labels, guidance)

    truth = heun(velocity, noise.double(), uniform_times(settings.truth_steps, SHIFT))
    peak = float(truth.max() - truth.min())

    def run(make: Callable[..., Any], solver: str, steps: int, **options: Any) -> tuple[Tensor, int]:
        return integrate(make(**SCHEDULERS[solver][2], **options), steps, velocity, noise)

    for setting in _settings(settings) if plain else [next(_settings(settings))]:
        stablevs, control, _ = SCHEDULERS[setting.solver]
        options = {"xi": setting.xi, "low_steps": setting.low_steps}
        ends = {
            "long": run(stablevs, setting.solver, settings.steps, enabled=False),
            "stablevs": run(stablevs, setting.solver, settings.steps, **options),
            "control": run(control, setting.solver, settings.steps, **options),
        }
        ends["base"] = run(stablevs, setting.solver, ends["stablevs"][1], enabled=False)
        for arm, (end, calls) in ends.items():
            row = {**setting._asdict(), "arm": arm, "calls": calls}
            for name, other in (("long", ends["long"][0]), ("truth", truth)):
                error = (end - other).square().mean(1)
                same = arm == name
                row[f"psnr_{name}"] = math.nan if same else float((10 * (peak**2 / error).log10()).mean())
                row[f"flips_{name}"] = float((mixture.mode(end) != mixture.mode(other)).double().mean())
            yield row


def _settings(settings: ExactFlow) -> Iterator[Setting]:
    """The first of each, then the others one at a time."""
    first = Setting(settings.solvers[0], settings.xi[0], settings.low_steps[0])
    yield first
    yield from (first._replace(solver=solver) for solver in settings.solvers[1:])
    yield from (first._replace(xi=xi) for xi in settings.xi[1:])
    yield from (first._replace(low_steps=low_steps) for low_steps in settings.low_steps[1:])
