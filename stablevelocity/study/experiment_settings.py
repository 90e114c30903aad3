"""The sections of a study's experiments: variance curves, the toy, exact flows, the variance of gradients."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stablevelocity.study.settings import Bank, Section, StableVM
from stablevelocity.study.values import (
    NUMBER,
    Distinct,
    Fraction,
    Name,
    Positive,
    PositiveFloat,
    Seed,
    Several,
    Size,
    Some,
    Steps,
)


class Variance(Section):
    """Variance curves of mixtures, pixels and latents (figure 1; docs/paper.md#variance)."""

    gmm_dimensions: Distinct[Size] = [10, 100, 500]
    gmm_samples: Several = Field(default=10_000, description="points of the empirical distribution of each mixture")
    gmm_times: Several = 50
    exact_samples: Several = Field(default=2000, description="noised samples of the exact distribution")
    data: Distinct[Literal["pixels", "latents"]] = ["pixels", "latents"]
    data_samples: Several = Field(default=50_000, description="at most this many images; fewer if there are fewer")
    data_times: Several = 20
    reference_counts: Some[Several] = Field(
        default=[100, 1000, 10_000], description="sizes of the empirical distribution for the dependence on M"
    )
    seed: Seed = 42


class Toy(Section):
    """The toy experiment: a mixture whose velocity is known (docs/paper.md#toy)."""

    objectives: Some[Literal["cfm", "stf", "stablevm"]] = ["cfm", "stf", "stablevm"]
    seeds: Some[Seed] = [0, 1, 2, 3, 4]
    updates: Steps = 20_000
    batch: Size = 256
    references: Size = 2048
    lr: PositiveFloat = 1e-4
    ema: Fraction = 0.999
    evaluate_every: Positive = 500
    points: Several = 10_000
    times: Some[Fraction] = [0.2, 0.3, 0.4, 0.5]


class ExactFlow(Section):
    """StableVS on velocities that are known: dimension by spectrum by spread by guidance (docs/paper.md#stablevs).

    The first of `solvers`, `xi` and `low_steps` are run in each of these mixtures; the others, one at a time, only in
    those of the first spread and guidance.
    """

    dimensions: Some[Size] = [16, 64, 256, 1024]
    exponents: Some[Annotated[float, Field(ge=0, le=4), NUMBER]] = Field(
        default=[0.0, 0.5, 1.0], description="of the spectrum: coordinate k has deviation k^-exponent; 0: white"
    )
    spreads: Some[Fraction] = Field(
        default=[0.1, 0.03, 0.3], description="deviation within a mode over that of all data, in each coordinate"
    )
    guidance: Some[Annotated[float, Field(ge=1, le=1000), NUMBER]] = [1.0, 4.5]
    solvers: Some[Literal["euler", "dpm", "unipc"]] = ["euler", "dpm", "unipc"]
    xi: Some[Fraction] = [0.85, 0.7, 0.95]
    low_steps: Some[Steps] = [9, 5, 13]
    steps: Steps = Field(default=30, description="of the long run, which StableVS thins")
    truth_steps: Steps = Field(default=100, description="of Heun, two calls each: the true flow")
    modes: Size = 1000
    classes: Size = 20
    samples: Several = 32
    seeds: Some[Seed] = [0, 1, 2, 3, 4]

    @model_validator(mode="after")
    def _modes_fill_the_classes(self) -> "ExactFlow":
        if self.modes < self.classes:
            raise ValueError(f"modes: {self.modes}, but there are {self.classes} classes")
        return self


class GradientVariance(Section):
    """Variance of a batch's gradient at the kept weights of runs, with CFM's target and StableVM's on the same x_t."""

    arms: Some[Name] = Field(description="arms whose first seed is measured, at every kept step")
    batches: Several = 64
    stablevm: StableVM = StableVM(t_min=0.0, bank=Bank(capacity=128))
