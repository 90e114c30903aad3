"""StableVS over diffusers' multistep DPM-Solver++ with flow sigmas (SD3.5), and its control arm."""

from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput  # noqa: F401 (see base.py)
from jaxtyping import Float
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.schedulers.base import Generators, MultistepFlowMixin, StableVSMixin

#: diffusers keeps the first flow sigma this far below 1 for UniPC: there log(1 - sigma) must be finite.
_MARGIN = 1e-6


class ThinnedDPMSolverMultistepScheduler(MultistepFlowMixin, DPMSolverMultistepScheduler):
    """Control arm: DPMSolverMultistepScheduler, unchanged but for the grid that StableVS uses."""

    foreign_options = (*MultistepFlowMixin.foreign_options, "shift_terminal")

    def _check_config(self) -> None:
        super()._check_config()
        self._require("algorithm_type", "dpmsolver++")
        for option in ("use_karras_sigmas", "use_lu_lambdas"):
            self._refuse(option, "the base class then leaves flow sigmas for variance-preserving ones")

    def base_sigmas(self, steps: int) -> Float[np.ndarray, " steps"]:
        self._check_steps(steps)
        return np.linspace(1 - 1 / self.config.num_train_timesteps, 0, steps + 1)[:-1]

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        mu: float | None = None,
        timesteps: list[int] | np.ndarray | None = None,
        sigmas: list[float] | np.ndarray | None = None,
    ) -> None:
        """As the base class; the result is thinned below xi, so it may hold fewer steps than asked for.

        `sigmas`, which the base class lacks, are flow sigmas before the shift, as the Euler scheduler takes them.
        """
        if not self.config.enabled:
            if sigmas is not None:
                raise UserError(f"{type(self).__name__} takes sigmas only while enabled: its base class has none")
            super().set_timesteps(num_inference_steps, device, mu, timesteps)  # type: ignore[arg-type]
            return
        self._check_call(mu, timesteps)
        self._check_steps(num_inference_steps, sigmas)
        if sigmas is None:
            super().set_timesteps(num_inference_steps, device, mu)  # type: ignore[arg-type]
        else:
            super().set_timesteps(len(sigmas), device, mu)  # type: ignore[arg-type]
            self._place(np.asarray(sigmas, dtype=np.float64))
        self._thin(num_inference_steps if sigmas is None else None)

    def _check_call(self, mu: float | None, timesteps: Any) -> None:
        name, dynamic = type(self).__name__, self.config.use_dynamic_shifting
        if timesteps is not None:
            raise UserError(f"{name} cannot honour timesteps: the base class makes no flow sigmas of them; pass sigmas")
        if dynamic and self.config.time_shift_type != "exponential":
            raise UserError(f"{name} needs time_shift_type='exponential', got {self.config.time_shift_type!r}")
        if dynamic != (mu is not None):
            raise UserError(f"{name} needs mu where use_dynamic_shifting is on and only there, got mu={mu}")

    def _place(self, sigmas: Float[np.ndarray, " steps"]) -> None:
        """Put the steps at these sigmas, shifted as the base class shifts its own."""
        shift = self.config.flow_shift
        shifted = np.minimum(shift * sigmas / (1 + (shift - 1) * sigmas), 1 - _MARGIN)
        self.sigmas = torch.from_numpy(np.append(shifted, 0).astype(np.float32))
        device = self.timesteps.device
        self.timesteps = torch.from_numpy(shifted * self.config.num_train_timesteps).to(device, torch.int64)

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        generator: Generators = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple:
        """As the base class, but in float32 throughout; StableVS's closed form where the next sigma is below xi."""
        if not self.config.enabled:
            return super().step(model_output, timestep, sample, generator, variance_noise, return_dict)  # type: ignore[arg-type]
        stepped = self._step(super().step, model_output, timestep, sample, generator)
        # The dtype of the base class's result: it starts from sample - sigma * model_output.
        stepped = stepped.to(torch.promote_types(sample.dtype, model_output.dtype))
        return SchedulerOutput(prev_sample=stepped) if return_dict else (stepped,)


class StableVSDPMSolverMultistepScheduler(StableVSMixin, ThinnedDPMSolverMultistepScheduler):
    """DPM-Solver++ above xi, few closed-form steps below (docs/paper.md#stablevs).

    The last step above xi, the one that lands below it, is taken in closed form too, as the released
    scheduler does: 10 closed-form steps for 9 low sigmas.
    """

    switches_on_next_sigma = True
