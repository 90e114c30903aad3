"""StableVS over diffusers' multistep UniPC with flow sigmas (Wan2.2), and its control arm."""

import numpy as np
import torch
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput  # noqa: F401 (see base.py)
from jaxtyping import Float
from torch import Tensor

from stablevelocity.schedulers.base import Generators, MultistepFlowMixin, StableVSMixin


class ThinnedUniPCMultistepScheduler(MultistepFlowMixin, UniPCMultistepScheduler):
    """Control arm: UniPCMultistepScheduler, unchanged but for the grid that StableVS uses."""

    def _check_config(self) -> None:
        super()._check_config()
        self._refuse("solver_p", "another predictor would keep the grid that is not thinned")

    def base_sigmas(self, steps: int) -> Float[np.ndarray, " steps"]:
        self._check_steps(steps)
        return np.linspace(1, 1 / self.config.num_train_timesteps, steps + 1)[:-1]

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: list[float] | np.ndarray | None = None,
        mu: float | None = None,
    ) -> None:
        """As the base class; the result is thinned below xi, so it may hold fewer steps than asked for."""
        if self.config.enabled:
            self._check_steps(num_inference_steps, sigmas)
        # The base class computes with them as an array; pipelines and people pass lists.
        given = None if sigmas is None else np.asarray(sigmas)
        super().set_timesteps(num_inference_steps, device, given, mu)  # type: ignore[arg-type]
        if self.config.enabled:
            self._thin(num_inference_steps if sigmas is None else None)

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        return_dict: bool = True,
        generator: Generators = None,
    ) -> SchedulerOutput | tuple:
        """As the base class, but in float32 throughout; StableVS's closed form where the current sigma is below xi.

        `generator` is for the fresh noise of `noise_factor` > 0; the base class has none.
        """
        if not self.config.enabled:
            return super().step(model_output, timestep, sample, return_dict)
        stepped = self._step(super().step, model_output, timestep, sample, generator).to(sample.dtype)
        return SchedulerOutput(prev_sample=stepped) if return_dict else (stepped,)


class StableVSUniPCMultistepScheduler(StableVSMixin, ThinnedUniPCMultistepScheduler):
    """UniPC above xi, few closed-form steps below (docs/paper.md#stablevs).

    The first closed-form step starts at the sample that UniPC predicted: the corrector that would have
    amended it belongs to the next UniPC step, which is not taken.
    """
