"""The three bases with the options that flow models need, and a velocity to integrate."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from stablevelocity import schedulers

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}


@dataclass
class Base:
    stock: type
    stablevs: type
    control: type
    config: dict[str, Any]

    @property
    def hands_over_early(self) -> int:
        return int(self.stock is DPMSolverMultistepScheduler)


BASES = {
    "euler": Base(
        FlowMatchEulerDiscreteScheduler,
        schedulers.StableVSFlowMatchEulerScheduler,
        schedulers.ThinnedFlowMatchEulerScheduler,
        {"shift": 3.0},
    ),
    "dpm": Base(
        DPMSolverMultistepScheduler,
        schedulers.StableVSDPMSolverMultistepScheduler,
        schedulers.ThinnedDPMSolverMultistepScheduler,
        FLOW,
    ),
    "unipc": Base(
        UniPCMultistepScheduler,
        schedulers.StableVSUniPCMultistepScheduler,
        schedulers.ThinnedUniPCMultistepScheduler,
        FLOW,
    ),
}


def velocity(x, timestep):
    """A smooth field that is neither constant nor linear, so that every step counts."""
    t = float(timestep) / 1000
    return (torch.cos(2 * x.float()) + x.float() * (t - 0.3)).to(x.dtype)


def run(scheduler, x, *, start=0, **step_options):
    """Integrate `velocity` over the scheduler's own grid; returns every state, the first included."""
    states = [x]
    for timestep in scheduler.timesteps[start:]:
        output = scheduler.step(velocity(states[-1], timestep), timestep, states[-1], **step_options)
        states.append(output.prev_sample)
    return states


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
