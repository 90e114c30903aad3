"""StableVS over diffusers' flow-matching Euler scheduler (SD3.5, Flux, Qwen-Image), and its control arm."""

from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
    FlowMatchEulerDiscreteSchedulerOutput,
)
from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: F401 (see thinned.py)
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.schedulers.thinned import Generators, StableVSMixin, ThinnedGridMixin, extends_config_of


class _ThinnedEuler(ThinnedGridMixin, FlowMatchEulerDiscreteScheduler):
    skips_smallest_sigma = True
    shift_names = ("shift", "flow_shift")

    def _check_config(self) -> None:
        super()._check_config()
        self._refuse("invert_sigmas", "the grid rule is for sigmas that fall from 1 to 0")
        self._refuse("stochastic_sampling", "that redraws all noise at each step; see noise_factor")

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: list[float] | np.ndarray | None = None,
        mu: float | None = None,
        timesteps: list[float] | np.ndarray | None = None,
    ) -> None:
        """As the base class; the result is thinned below xi, so it may hold fewer steps than asked for."""
        super().set_timesteps(num_inference_steps, device, sigmas, mu, timesteps)  # type: ignore[arg-type]
        if self.config.enabled:
            self._thin(num_inference_steps if sigmas is None and timesteps is None else None)

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = float("inf"),
        s_noise: float = 1.0,
        generator: Generators = None,
        per_token_timesteps: Tensor | None = None,
        return_dict: bool = True,
    ) -> FlowMatchEulerDiscreteSchedulerOutput | tuple:
        """As the base class, but in float32 throughout; StableVS's closed form where the current sigma is below xi."""
        churn: Any = (s_churn, s_tmin, s_tmax, s_noise, generator, per_token_timesteps)
        if not self.config.enabled:
            return super().step(model_output, timestep, sample, *churn, return_dict)  # type: ignore[arg-type]
        if per_token_timesteps is not None:
            raise UserError(f"{type(self).__name__} takes one timestep per step, got per_token_timesteps")
        x, velocity = sample.float(), model_output.float()
        if self._takes_closed_form(timestep):
            stepped = self._closed_form(velocity, x, generator)
        else:
            stepped = super().step(velocity, timestep, x, *churn, return_dict=False)[0]  # type: ignore[arg-type]
        stepped = stepped.to(model_output.dtype)
        if not return_dict:
            return (stepped,)
        return FlowMatchEulerDiscreteSchedulerOutput(prev_sample=stepped)  # type: ignore[arg-type]


class ThinnedFlowMatchEulerScheduler(_ThinnedEuler):
    """Control arm: FlowMatchEulerDiscreteScheduler, unchanged but for the grid that StableVS uses.

    On the linear path with `noise_factor` 0 the closed form *is* the Euler step, and both are computed in float32,
    so this arm and `StableVSFlowMatchEulerScheduler` make the same samples: with Euler all of the gain is the grid.
    """

    @extends_config_of(FlowMatchEulerDiscreteScheduler)
    def __init__(
        self,
        *args: Any,
        xi: float = 0.85,
        low_steps: int = 9,
        grid: list[float] | None = None,
        calls: int | None = None,
        enabled: bool = True,
        **base_config: Any,
    ):
        super().__init__(*args, **base_config)
        if enabled:
            self._check_config()


class StableVSFlowMatchEulerScheduler(StableVSMixin, _ThinnedEuler):
    """FlowMatchEulerDiscreteScheduler above xi, few closed-form steps below (docs/paper.md#stablevs).

    Use: `pipe.scheduler = StableVSFlowMatchEulerScheduler.from_config(pipe.scheduler.config)`. Ask the pipeline
    for the base schedule's steps (30); the grid is then thinned below `xi` to `low_steps`.
    """

    @extends_config_of(FlowMatchEulerDiscreteScheduler)
    def __init__(
        self,
        *args: Any,
        xi: float = 0.85,
        low_steps: int = 9,
        grid: list[float] | None = None,
        calls: int | None = None,
        noise_factor: float = 0.0,
        enabled: bool = True,
        **base_config: Any,
    ):
        super().__init__(*args, **base_config)
        if enabled:
            self._check_config()
