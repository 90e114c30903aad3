"""StableVS over diffusers' flow-matching Euler scheduler (SD3.5, Flux, Qwen-Image), and its control arm."""

import functools
from typing import Any, cast

import numpy as np
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
    FlowMatchEulerDiscreteSchedulerOutput,
)
from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: F401 (see base.py)
from jaxtyping import Float
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.schedulers.base import Generators, StableVSMixin, ThinnedGridMixin


class ThinnedFlowMatchEulerScheduler(ThinnedGridMixin, FlowMatchEulerDiscreteScheduler):
    """Control arm: FlowMatchEulerDiscreteScheduler, unchanged but for the grid that StableVS uses.

    On the linear path with `noise_factor` 0 the closed form *is* the Euler step, and both are computed in float32,
    so this arm and `StableVSFlowMatchEulerScheduler` make the same samples: with Euler all of the gain is the grid.
    """

    skips_smallest_sigma = True
    shift_names = ("shift", "flow_shift")
    foreign_keys = ("flow_shift", "use_flow_sigmas", "prediction_type")

    def _check_config(self) -> None:
        super()._check_config()
        self._refuse("invert_sigmas", "the grid rule is for sigmas that fall from 1 to 0")
        self._refuse("stochastic_sampling", "that redraws all noise at each step; see noise_factor")

    def set_shift(self, shift: float) -> None:
        """As the base class; the config says it too, so that it goes along with `from_config`."""
        super().set_shift(shift)
        if self.config.enabled:
            kept = {"flow_shift": shift} if "flow_shift" in self.config else {}
            self.register_to_config(shift=shift, **kept)

    def base_sigmas(self, steps: int) -> Float[np.ndarray, " steps"]:
        self._check_steps(steps)
        return np.linspace(self.sigma_max, self.sigma_min, steps)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: list[float] | np.ndarray | None = None,
        mu: float | None = None,
        timesteps: list[float] | np.ndarray | None = None,
    ) -> None:
        """As the base class; the result is thinned below xi, so it may hold fewer steps than asked for."""
        if self.config.enabled:
            self._check_steps(num_inference_steps, timesteps if sigmas is None else sigmas)
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
        base_step = functools.partial(
            cast(Any, super().step), s_churn=s_churn, s_tmin=s_tmin, s_tmax=s_tmax, s_noise=s_noise, generator=generator
        )
        if not self.config.enabled:
            return base_step(
                model_output, timestep, sample, per_token_timesteps=per_token_timesteps, return_dict=return_dict
            )
        if per_token_timesteps is not None:
            raise UserError(f"{type(self).__name__} takes one timestep per step, got per_token_timesteps")
        stepped = self._step(base_step, model_output, timestep, sample, generator).to(model_output.dtype)
        if not return_dict:
            return (stepped,)
        return FlowMatchEulerDiscreteSchedulerOutput(prev_sample=stepped)  # type: ignore[arg-type]


class StableVSFlowMatchEulerScheduler(StableVSMixin, ThinnedFlowMatchEulerScheduler):
    """FlowMatchEulerDiscreteScheduler above xi, few closed-form steps below (docs/paper.md#stablevs).

    Use: `pipe.scheduler = StableVSFlowMatchEulerScheduler.from_config(pipe.scheduler.config)`. Ask the pipeline
    for the base schedule's steps (30); the grid is then thinned below `xi` to `low_steps`.
    """
