"""A sampler of a study file, run: its grid, its solver, and what it costs in network calls."""

import functools

import torch
from jaxtyping import Float64
from torch import Tensor

from stablevelocity.interpolants import Interpolant, LinearPath
from stablevelocity.sampling.grid import euler_maruyama_times, thin_times, uniform_times
from stablevelocity.sampling.solvers import Velocity, euler, euler_maruyama, heun
from stablevelocity.sampling.stablevs import BaseSolver, stablevs
from stablevelocity.study.settings import Sampler


def sampler_times(sampler: Sampler) -> Float64[Tensor, " times"]:
    """The grid of a sampler: uniform, or Euler-Maruyama's, thinned below xi for StableVS and its control."""
    if sampler.solver == "euler_maruyama":
        times = euler_maruyama_times(sampler.steps, sampler.last_time)
    else:
        times = uniform_times(sampler.steps, sampler.shift)
    if sampler.low_regime == "none":
        return times
    return thin_times(times, sampler.xi, sampler.low_steps)


def solve(
    velocity: Velocity, noise: Tensor, sampler: Sampler, *, path: Interpolant, draws: torch.Generator | None = None
) -> Tensor:
    """From noise at t = 1 to a sample at t = 0, in float64, by the sampler's solver on its grid.

    `draws` is where Euler-Maruyama and a StableVS with noise take theirs.
    """
    base: BaseSolver
    if sampler.solver == "euler_maruyama":
        base = functools.partial(euler_maruyama, path=path, diffusion=sampler.diffusion, generator=draws)
    else:
        base = {"euler": euler, "heun": heun}[sampler.solver]
    times = sampler_times(sampler)
    if sampler.low_regime != "stablevs":
        return base(velocity, noise, times)
    return stablevs(
        velocity, noise, times, xi=sampler.xi, path=path, noise_factor=sampler.noise_factor, generator=draws, base=base
    )


def network_calls(sampler: Sampler) -> int:
    """Number of function evaluations per image; a guided call counts once, though it runs on two rows."""
    calls = 0

    def count(x: Tensor, t: float) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.zeros_like(x)

    solve(count, torch.zeros(1, 1), sampler, path=LinearPath(), draws=torch.Generator())
    return calls
