"""Long runs with all they went through: states and velocities at every noise level.

Linear path, t = sigma = 1 is noise: x_sigma = (1 - sigma) x_0 + sigma eps, dx/dsigma = v (docs/paper.md#conventions).
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stablevelocity.errors import UserError


@dataclass(frozen=True)
class Trajectory:
    """One run of N steps for a batch of pictures, on the CPU in float32.

    `sigmas` are N + 1 noise levels that fall strictly to 0, `states` the state at each, `velocities` what the network
    (guidance included) said at all but the last. `multistep`: the run is DPM-Solver++'s or UniPC's, not Euler's. Raises
    UserError where these do not fit together.
    """

    sigmas: tuple[float, ...]
    states: Float[Tensor, "levels batch *shape"]
    velocities: Float[Tensor, "steps batch *shape"]
    multistep: bool = False

    def __post_init__(self) -> None:
        levels = self.sigmas
        _check_levels(levels)
        if len(self.states) != len(levels) or len(self.velocities) != len(levels) - 1:
            counts = f"{len(self.states)} states and {len(self.velocities)} velocities"
            raise UserError(
                f"trajectory: {counts} for {len(levels)} sigmas; expected one each, no velocity at the last"
            )
        if self.states.ndim < 3 or self.states.shape[1:] != self.velocities.shape[1:]:
            shapes = f"{tuple(self.states.shape[1:])} and {tuple(self.velocities.shape[1:])}"
            raise UserError(f"trajectory: states and velocities of shape {shapes}; expected (batch, ...), both alike")
        if not bool(torch.isfinite(self.states).all() and torch.isfinite(self.velocities).all()):
            raise UserError("trajectory: a state or velocity is NaN or infinite")


@torch.no_grad()
def trajectory(
    velocity: Callable[[Tensor, float], Tensor], noise: Float[Tensor, "batch *shape"], sigmas: Sequence[float]
) -> Trajectory:
    """Euler's long run of `velocity(x, sigma)` from `noise` at `sigmas[0]` down to 0 (appended where it is missing).

    sigma is a float, 1 is noise; the velocity is dx/dsigma, noise minus data, guidance included. Shapes: (B, D), tokens
    (B, L, C), (B, C, H, W) or (B, C, T, H, W). Raises UserError for other sigmas, and where the velocity is none.
    """
    levels = [float(sigma) for sigma in sigmas]
    levels += [0.0] if levels and levels[-1] > 0 else []
    _check_levels(levels)
    # Copies at once: the function may change its input, or write each answer into the same memory.
    x, states, velocities = noise, [_copy(noise)], []
    for sigma, below in itertools.pairwise(levels):
        v = velocity(x.clone(), sigma)
        if not isinstance(v, Tensor) or v.shape != x.shape:
            given = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
            raise UserError(
                f"trajectory: velocity(x, {sigma:g}) is {given}; expected a tensor like x, {tuple(x.shape)}"
            )
        x = x + (below - sigma) * v
        velocities.append(_copy(v))
        states.append(_copy(x))
    return Trajectory(tuple(levels), torch.stack(states), torch.stack(velocities))


@dataclass
class Recording:
    """What `record` saw: `calls` network calls; `trajectory()` once one run is over."""

    scheduler: Any
    sigmas: Sequence[float] | Tensor
    states: list[Tensor] = field(default_factory=list)
    velocities: list[Tensor] = field(default_factory=list)
    end: Tensor | None = None

    @property
    def calls(self) -> int:
        return len(self.velocities)

    def trajectory(self) -> Trajectory:
        """Raises UserError unless exactly one run went over all of the scheduler's steps."""
        levels = tuple(float(sigma) for sigma in self.sigmas)
        if self.end is None or self.calls != len(levels) - 1:
            raise UserError(f"record: {self.calls} steps seen; expected the {len(levels) - 1} of one whole run")
        states, velocities = torch.stack([*self.states, self.end]), torch.stack(self.velocities)
        return Trajectory(levels, states, velocities, multistep="solver_order" in self.scheduler.config)


@contextmanager
def record(scheduler: Any) -> Iterator[Recording]:
    """Record what a pipeline gives to and gets from `scheduler.step` during one run.

        with record(pipe.scheduler) as recording:
            pipe(prompt, num_inference_steps=30)
        recommend(recording.trajectory(), calls=20)

    The step sees the guided velocity and the state that belongs to it; no callback of diffusers is given both. The run
    itself is not changed. Raises UserError for what is no scheduler, and for one whose network predicts no velocity.
    """
    if not hasattr(scheduler, "step") or "step" in vars(scheduler):
        problem = "is recorded already" if hasattr(scheduler, "step") else "is no scheduler; pass pipe.scheduler"
        raise UserError(f"record: {type(scheduler).__name__} {problem}")
    predicts = scheduler.config.get("prediction_type", "flow_prediction")
    if predicts != "flow_prediction":
        raise UserError(f"record: {type(scheduler).__name__} has prediction_type {predicts!r}, not flow_prediction")
    recording, step = Recording(scheduler, scheduler.sigmas), scheduler.step

    @functools.wraps(step)
    def recorded(model_output: Tensor, timestep: Any, sample: Tensor, *rest: Any, **options: Any) -> Any:
        result = step(model_output, timestep, sample, *rest, **options)
        recording.sigmas = scheduler.sigmas  # of this run: a later one may have others
        recording.states.append(_copy(sample))
        recording.velocities.append(_copy(model_output))
        recording.end = _copy(result[0] if isinstance(result, tuple) else result.prev_sample)
        return result

    scheduler.step = recorded
    try:
        yield recording
    finally:
        del scheduler.step


def _copy(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float32, copy=True)


def _check_levels(levels: Sequence[float]) -> None:
    if not (
        len(levels) > 2 and levels[0] <= 1 and levels[-1] == 0 and all(a > b for a, b in itertools.pairwise(levels))
    ):
        raise UserError(f"trajectory: sigmas {_few(levels)}; expected at least 3 that fall strictly from <= 1 to 0")


def _few(levels: Sequence[float]) -> str:
    shown = [f"{level:.4g}" for level in levels]
    return ", ".join(shown if len(shown) <= 6 else [*shown[:3], "...", *shown[-2:]])
