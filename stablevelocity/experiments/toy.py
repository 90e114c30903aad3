"""The toy experiment: CFM, STF and StableVM on a mixture whose velocity is known (docs/paper.md#toy).

All objectives and seeds train at once (mlp.py). A seed fixes the initial weights and every draw; the
objectives of a seed share them, so their differences are paired. Seeds share the mixture and the points of
the evaluation, never a draw. No gradient clipping and no clamp of t, for any objective.
"""

import statistics
import time
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.experiments import mlp
from stablevelocity.experiments.mlp import Parameters, time_features, velocities
from stablevelocity.gmm import GaussianMixture, paper_mixture
from stablevelocity.interpolants import LinearPath
from stablevelocity.models.train_small import update_average
from stablevelocity.progress import Progress
from stablevelocity.randomness import generator
from stablevelocity.study.experiment_settings import Toy
from stablevelocity.variance import gradient_variance

DIMENSION = 10
MIXTURE_SEED = 42
PATH = LinearPath()

# What the variances and the cost are measured on; the training's own settings are in the study.
TARGET_TIMES = [round(0.05 * k, 2) for k in range(1, 20)]
TARGET_BATCHES = 4
GRADIENT_TIMES = [round(0.1 * k, 1) for k in range(1, 10)]
GRADIENT_BATCHES = 16
COST_REFERENCES = [32, 128, 512, 2048, 8192]
COST_REPEATS = 15


class ToyTables(NamedTuple):
    """One table for each measure; the field is its file's name.

    error: objective, seed, update, t, error: mean squared L2 distance of the EMA network to the velocity.
    target_variance: objective, seed, t, variance, removed: mean squared L2 distance of the target to the velocity, and
        of the CFM target on the same samples to the target. Given x_t and references the target is the mean of the CFM
        target, so variance + removed is CFM's variance, without the noise of another draw.
    gradient_variance: objective, seed, t, variance, trace, signal: variance of the batch gradient for each
        parameter, the trace of its covariance, and the squared norm of its mean; all objectives at the same
        weights, those that the seed's first objective ended with.
    cost: references, seconds_drawing, seconds_target, seconds_update, seconds (their sum) of one step of one
        run; references = 0 is CFM.
    """

    error: pd.DataFrame
    target_variance: pd.DataFrame
    gradient_variance: pd.DataFrame
    cost: pd.DataFrame


class Draw(NamedTuple):
    """The random numbers of one step of one seed."""

    references: Float[Tensor, "n d"]
    t: Float[Tensor, " batch"]
    noise: Float[Tensor, "batch d"]
    pick: Int[Tensor, " batch"]  # StableVM: the reference that is noised; STF and CFM take the first ones

    @classmethod
    def of(
        cls, mixture: GaussianMixture, batch: int, references: int, rng: torch.Generator, t: float | None = None
    ) -> "Draw":
        """`t` uniform in (0, 1] unless given."""
        return cls(
            mixture.sample(references, rng).float(),
            1 - torch.rand(batch, generator=rng) if t is None else torch.full((batch,), t),
            torch.randn(batch, mixture.dimension, generator=rng),
            torch.randint(references, (batch,), generator=rng),
        )


class Objectives:
    """Inputs and targets of the three objectives from one draw; buffers for the weights are kept."""

    def __init__(self) -> None:
        self._buffers = (torch.empty(0), torch.empty(0))

    def __call__(self, objective: str, draw: Draw) -> tuple[Tensor, Tensor]:
        """(x_t, target), both (batch, d)."""
        x_t, conditional = self.conditional(objective, draw)
        if objective == "cfm":
            return x_t, conditional
        mean = self.posterior_mean(x_t, draw.t, draw.references)
        return x_t, PATH.velocity_from_posterior_mean(x_t, mean, draw.t)

    def conditional(self, objective: str, draw: Draw) -> tuple[Tensor, Tensor]:
        """(x_t, CFM target) on the samples of an objective."""
        x_0 = draw.references[draw.pick] if objective == "stablevm" else draw.references[: len(draw.t)]
        return PATH.interpolate(x_0, draw.noise, draw.t), PATH.velocity_from_noise(x_0, draw.noise, draw.t)

    def posterior_mean(
        self, x_t: Float[Tensor, "batch d"], t: Float[Tensor, " batch"], references: Float[Tensor, "n d"]
    ) -> Float[Tensor, "batch d"]:
        """E[x_0 | x_t] over references shared by the batch: what `targets.stablevm_target` uses.

        The same numbers for this experiment's small d, some five times faster: coefficients are folded into
        the product, the weights stay in buffers, and their product with the references is transposed (long
        and thin the other way takes thrice the time).
        """
        shape = (len(x_t), len(references))
        if self._buffers[0].shape != shape:
            self._buffers = (torch.empty(shape), torch.empty(shape))
        logits, weights = self._buffers
        alpha, sigma, _, _ = PATH.coefficients(x_t, t)
        query = torch.cat([x_t * (alpha / sigma**2), -((alpha / sigma) ** 2) / 2], 1)
        key = torch.cat([references, references.square().sum(1, keepdim=True)], 1)
        torch.mm(query, key.T, out=logits)
        torch.softmax(logits, 1, out=weights)
        return (references.T @ weights.T).T


def run_toy(settings: Toy) -> ToyTables:
    """Train every objective from every seed and measure it; see `ToyTables`.

    Raises UserError when a batch is larger than its set of references (STF noises the first ones).
    """
    if settings.batch > settings.references:
        raise UserError(f"toy: batch {settings.batch}, references {settings.references}; expected at least as many")
    mixture = paper_mixture(DIMENSION, MIXTURE_SEED)
    error, averages = train(settings, mixture)
    gradients = _gradient_variance(settings, mixture, averages)
    return ToyTables(error, target_variance(settings, mixture), gradients, _cost(settings, mixture))


def train(settings: Toy, mixture: GaussianMixture) -> tuple[pd.DataFrame, Parameters]:
    """Errors along the training, and the EMA weights with a first axis of (objective, seed) runs."""
    objectives, seeds = settings.objectives, settings.seeds
    repeats = len(objectives)
    starts = [mlp.initial_parameters(DIMENSION, generator(seed, 0, "toy start")) for seed in seeds]
    parameters = {name: value.requires_grad_() for name, value in mlp.stack(starts * repeats).items()}
    averages = {name: value.detach().clone() for name, value in parameters.items()}
    optimizer = torch.optim.Adam(list(parameters.values()), lr=settings.lr, fused=True)
    streams = [generator(seed, 0, "toy training") for seed in seeds]
    batch_of, evaluate = Objectives(), evaluation(settings, mixture)
    progress = Progress("toy", settings.updates, "updates")
    rows: list[tuple] = []
    for update in range(1, settings.updates + 1):
        draws = [Draw.of(mixture, settings.batch, settings.references, stream) for stream in streams]
        dropout = torch.cat([mlp.dropout_factors(1, settings.batch, stream) for stream in streams], 1)
        pairs = [batch_of(objective, draw) for objective, draw in product(objectives, draws)]
        features = time_features(torch.stack([draw.t for draw in draws])).repeat(repeats, 1, 1)
        x_t = torch.stack([x_t for x_t, _ in pairs])
        predicted = velocities(parameters, x_t, features, dropout.repeat(1, repeats, 1, 1))
        losses = (predicted - torch.stack([target for _, target in pairs])).square().sum(2).mean(1)
        optimizer.zero_grad()
        # Runs share no parameter: the gradient of the sum is each run's own.
        losses.sum().backward()
        optimizer.step()
        update_average(averages.values(), parameters.values(), settings.ema)
        if update % settings.evaluate_every == 0 or update == settings.updates:
            for t, errors in evaluate(averages).items():
                runs = product(objectives, seeds)
                rows += [(*run, update, t, error) for run, error in zip(runs, errors, strict=True)]
        progress.update()
    return pd.DataFrame(rows, columns=["objective", "seed", "update", "t", "error"]), averages


def evaluation(settings: Toy, mixture: GaussianMixture) -> Callable[[Parameters], dict[float, list[float]]]:
    """A function of stacked weights: the error of each run at each time, on points shared by all runs."""
    rng = generator(MIXTURE_SEED, 0, "toy evaluation")
    points: dict[float, tuple[Tensor, Tensor]] = {}
    for t in settings.times:
        x_0 = mixture.sample(settings.points, rng)
        x_t = PATH.interpolate(x_0, torch.randn(x_0.shape, generator=rng, dtype=x_0.dtype), t)
        points[t] = x_t.float(), mixture.velocity(x_t, t, PATH).float()

    @torch.no_grad()
    def evaluate(parameters: Parameters) -> dict[float, list[float]]:
        errors = {}
        for t, (x_t, truth) in points.items():
            # One run at a time: 10,000 points of all runs would leave the cache.
            errors[t] = [
                float((_predict(parameters, run, x_t, t) - truth).double().square().sum(1).mean())
                for run in range(len(parameters["input.bias"]))
            ]
        return errors

    return evaluate


def _predict(parameters: Parameters, run: int, x: Tensor, t: float) -> Tensor:
    """Velocity of one run's network at (x, t), without dropout."""
    own = {name: value[run : run + 1] for name, value in parameters.items()}
    return velocities(own, x[None], time_features(torch.full((1, len(x)), t)))[0]


def target_variance(settings: Toy, mixture: GaussianMixture) -> pd.DataFrame:
    batch_of, rows = Objectives(), []
    for seed in settings.seeds:
        rng = generator(seed, 0, "toy target variance")
        for t in TARGET_TIMES:
            draws = [Draw.of(mixture, settings.batch, settings.references, rng, t) for _ in range(TARGET_BATCHES)]
            for objective in settings.objectives:
                pairs = [batch_of(objective, draw) for draw in draws]
                x_t, target = torch.cat([x for x, _ in pairs]), torch.cat([v for _, v in pairs])
                distance = (target - mixture.velocity(x_t, t, PATH)).double().square().sum(1)
                cfm = torch.cat([batch_of.conditional(objective, draw)[1] for draw in draws])
                removed = (cfm - target).double().square().sum(1)
                rows.append((objective, seed, t, float(distance.mean()), float(removed.mean())))
    return pd.DataFrame(rows, columns=["objective", "seed", "t", "variance", "removed"])


def _gradient_variance(settings: Toy, mixture: GaussianMixture, averages: Parameters) -> pd.DataFrame:
    """Over fresh batches at one time, without dropout, at weights that are the same for all objectives.

    A batch's samples share its references, so this variance need not fall as the target's does.
    """
    batch_of, rows = Objectives(), []

    def loss_of(objective: str, seed: int, t: float, weights: Parameters) -> Callable[[], Tensor]:
        # The same stream for each objective: their differences are paired.
        rng = generator(seed, round(1000 * t), "toy gradient variance")
        features = time_features(torch.full((1, settings.batch), t))

        def loss() -> Tensor:
            x_t, target = batch_of(objective, Draw.of(mixture, settings.batch, settings.references, rng, t))
            return (velocities(weights, x_t[None], features) - target).square().sum(2).mean()

        return loss

    for run, seed in enumerate(settings.seeds):
        weights = {name: value[run : run + 1].clone().requires_grad_() for name, value in averages.items()}
        for t, objective in product(GRADIENT_TIMES, settings.objectives):
            loss = loss_of(objective, seed, t, weights)
            variance = gradient_variance(loss, list(weights.values()), GRADIENT_BATCHES)
            rows.append((objective, seed, t, variance.per_parameter, variance.trace, variance.signal))
    return pd.DataFrame(rows, columns=["objective", "seed", "t", "variance", "trace", "signal"])


def _cost(settings: Toy, mixture: GaussianMixture) -> pd.DataFrame:
    """Median wall-clock seconds of the parts of a step of one run, on this machine and its other load."""
    rng = generator(0, 0, "toy cost")
    parameters = mlp.stack([mlp.initial_parameters(DIMENSION, rng)])
    optimizer = torch.optim.Adam([value.requires_grad_() for value in parameters.values()], lr=settings.lr, fused=True)
    timings: dict[int, list[tuple[float, float, float]]] = {count: [] for count in (0, *COST_REFERENCES)}
    objectives = {count: Objectives() for count in timings}
    # Sizes take turns, so that other load on the machine falls on all of them alike.
    for _ in range(COST_REPEATS):
        for count, parts in timings.items():
            start = time.perf_counter()
            draw = Draw.of(mixture, settings.batch, count or settings.batch, rng)
            drawn = time.perf_counter()
            x_t, target = objectives[count]("stablevm" if count else "cfm", draw)
            targeted = time.perf_counter()
            dropout = mlp.dropout_factors(1, settings.batch, rng)
            predicted = velocities(parameters, x_t[None], time_features(draw.t[None]), dropout)
            optimizer.zero_grad()
            (predicted - target).square().sum(2).mean().backward()
            optimizer.step()
            parts.append((drawn - start, targeted - drawn, time.perf_counter() - targeted))
    rows = []
    for count, parts in timings.items():
        medians = [statistics.median(part) for part in zip(*parts, strict=True)]
        rows.append((count, *medians, sum(medians)))
    columns = ["references", "seconds_drawing", "seconds_target", "seconds_update", "seconds"]
    return pd.DataFrame(rows, columns=columns)
