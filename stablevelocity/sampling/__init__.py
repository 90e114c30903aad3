"""Sampling: from noise at t = 1 to data at t = 0 along a velocity field."""

from stablevelocity.sampling.grid import euler_maruyama_times, thin_times, uniform_times
from stablevelocity.sampling.guidance import guided_velocity
from stablevelocity.sampling.solvers import euler, euler_maruyama, heun
from stablevelocity.sampling.stablevs import stablevs

__all__ = [
    "euler",
    "euler_maruyama",
    "euler_maruyama_times",
    "guided_velocity",
    "heun",
    "stablevs",
    "thin_times",
    "uniform_times",
]
