"""StableVS over diffusers' multistep DPM-Solver++ with flow sigmas (SD3.5), and its control arm."""

from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput  # noqa: F401 (see thinned.py)
from torch import Tensor

from stablevelocity.schedulers.thinned import Generators, StableVSMixin, ThinnedGridMixin, extends_config_of


class _ThinnedDPMSolver(ThinnedGridMixin, DPMSolverMultistepScheduler):
    def _check_config(self) -> None:
        super()._check_config()
        self._require("use_flow_sigmas", True)
        self._require("prediction_type", "flow_prediction")
        self._require("final_sigmas_type", "zero")
        for option in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"):
            self._refuse(option, "the base class then leaves flow sigmas for variance-preserving ones")

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        mu: float | None = None,
        timesteps: list[int] | np.ndarray | None = None,
    ) -> None:
        """As the base class; the result is thinned below xi, so it may hold fewer steps than asked for."""
        super().set_timesteps(num_inference_steps, device, mu, timesteps)  # type: ignore[arg-type]
        if self.config.enabled:
            self._thin()


class ThinnedDPMSolverMultistepScheduler(_ThinnedDPMSolver):
    """Control arm: DPMSolverMultistepScheduler, unchanged but for the grid that StableVS uses."""

    @extends_config_of(DPMSolverMultistepScheduler)
    def __init__(self, *args: Any, xi: float = 0.85, low_steps: int = 9, enabled: bool = True, **base_config: Any):
        super().__init__(*args, **base_config)
        if enabled:
            self._check_config()


class StableVSDPMSolverMultistepScheduler(StableVSMixin, _ThinnedDPMSolver):
    """DPM-Solver++ above xi, few closed-form steps below (PAPER: section 5).

    The last step above xi, the one that lands below it, is taken in closed form too, as the released
    scheduler does: 10 closed-form steps for 9 low sigmas. From a stock Euler config, add the flow options:
    `from_config(config, use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=config.shift)`.
    """

    hands_over_on_next_sigma = True

    @extends_config_of(DPMSolverMultistepScheduler)
    def __init__(
        self,
        *args: Any,
        xi: float = 0.85,
        low_steps: int = 9,
        noise_factor: float = 0.0,
        enabled: bool = True,
        **base_config: Any,
    ):
        super().__init__(*args, **base_config)
        if enabled:
            self._check_config()

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        generator: Generators = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple:
        """As the base class, but in closed form where the next sigma is below xi."""
        if not self._takes_closed_form(timestep):
            return super().step(model_output, timestep, sample, generator, variance_noise, return_dict)  # type: ignore[arg-type]
        stepped = self._closed_form(model_output, sample, generator).to(sample.dtype)
        return SchedulerOutput(prev_sample=stepped) if return_dict else (stepped,)
