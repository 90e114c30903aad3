"""How far each scheduler lands from the true flow, on mixtures whose velocity is known exactly.

The large models cannot be asked for their exact solution; a Gaussian mixture can. Every arm starts from the same
noise and calls the exact velocity; its end is compared with that of a 1,000-step Heun solution. The error of a
trained network plays no part here, so this says what the step and the grid cost, nothing more.
"""

import itertools
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from jaxtyping import Float
from torch import Tensor

from stablevelocity import schedulers
from stablevelocity.gmm import GaussianMixture, paper_mixture
from stablevelocity.sampling.solvers import Velocity, heun_step

SHIFT = 3.0
LONG, SHORT = 30, 20  # base steps
_FLOW: dict[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": SHIFT}
SCHEDULERS: dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = {
    "euler": (schedulers.StableVSFlowMatchEulerScheduler, schedulers.ThinnedFlowMatchEulerScheduler, {"shift": SHIFT}),
    "dpm": (schedulers.StableVSDPMSolverMultistepScheduler, schedulers.ThinnedDPMSolverMultistepScheduler, _FLOW),
    "unipc": (schedulers.StableVSUniPCMultistepScheduler, schedulers.ThinnedUniPCMultistepScheduler, _FLOW),
}


def scheduler_errors(dimensions: list[int], points: int, *, xi: float, low_steps: int) -> pd.DataFrame:
    """One row per dimension, base solver and arm: network calls and the root mean square error per coordinate.

    Arms: `long` (30) and `short` (20) base steps; `stablevs` and `control` on the long grid thinned below `xi`. Times
    are sigmas, moved by shift 3.
    """
    rows = []
    for dimension in dimensions:
        mixture = paper_mixture(dimension)
        noise = torch.randn(points, dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        exact = reference_solution(mixture, noise)
        for solver, (stablevs, control, config) in SCHEDULERS.items():
            arms = {
                "long": (stablevs(**config, enabled=False), LONG),
                "short": (stablevs(**config, enabled=False), SHORT),
                "stablevs": (stablevs(**config, xi=xi, low_steps=low_steps), LONG),
                "control": (control(**config, xi=xi, low_steps=low_steps), LONG),
            }
            for arm, (scheduler, steps) in arms.items():
                # The velocity in float32 too, as a pipeline has it.
                end, calls = integrate(scheduler, steps, lambda x, t: mixture.velocity(x.float(), t), noise.float())  # noqa: B023
                rows.append((dimension, solver, arm, calls, float((end - exact).square().mean().sqrt())))
    return pd.DataFrame(rows, columns=["dimension", "solver", "arm", "calls", "rms_error"])


def integrate(
    scheduler: Any, steps: int, velocity: Velocity, noise: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, "n d"], int]:
    """(end in float64, network calls): a scheduler's run in float32, as a pipeline has it, on a float64 velocity."""
    scheduler.set_timesteps(steps)
    x = noise
    for t, timestep in zip(scheduler.sigmas.tolist(), scheduler.timesteps, strict=False):  # the last sigma has no step
        x = scheduler.step(velocity(x.double(), t).float(), timestep, x, return_dict=False)[0]
    return x.double(), len(scheduler.timesteps)


def reference_solution(
    mixture: GaussianMixture, noise: Float[Tensor, "points dimension"], steps: int = 1000
) -> Float[Tensor, "points dimension"]:
    """Heun's method in float64 on the stock shifted grid of `steps` steps; the exact velocity exists at t = 0 too."""
    grid = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    grid.set_timesteps(steps)
    times = [float(sigma) for sigma in grid.sigmas]  # pyright: ignore[reportOptionalIterable] (set just now)
    x = noise
    for t, tau in itertools.pairwise(times):
        x = heun_step(mixture.velocity, x, t, tau)
    return x
