"""What all schedulers here share: a base scheduler of diffusers whose grid is thinned below xi.

`ThinnedGridMixin` changes the grid and nothing else (the control arm of every comparison); `StableVSMixin`
adds the closed-form step below xi. Both stand in front of a diffusers scheduler in a class's bases.

Each module with schedulers imports SchedulerMixin though it does not use it: when diffusers loads a pipeline that was
saved with one of them, it looks for the base class in the module that the pipeline names.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.schedulers.closed_form import closed_form_step
from stablevelocity.schedulers.grid import require_flow_sigmas, thinned_indices

Generators = torch.Generator | list[torch.Generator] | None


def extends_config_of(base: type) -> Callable:
    """Give an `__init__(self, *args, xi=..., **base_config)` the parameters of `base` before its own.

    diffusers reads a scheduler's config keys off the signature of `__init__`. Spelling out some thirty
    parameters of the installed version would lose any that another version adds, so they are taken from
    `base` itself; `from_config` of the stock scheduler then loses nothing. Unknown names raise TypeError as usual.
    """

    def decorate(init: Callable) -> Callable:
        own = [p for p in inspect.signature(init).parameters.values() if p.kind is p.KEYWORD_ONLY]
        inherited = list(inspect.signature(base.__init__).parameters.values())

        @functools.wraps(init)
        def with_signature(self: Any, *args: Any, **config: Any) -> None:
            init(self, *args, **config)

        with_signature.__signature__ = inspect.Signature([*inherited, *own])  # type: ignore[attr-defined]
        return register_to_config(with_signature)

    return decorate


class ThinnedGridMixin:
    """The base scheduler on the thinned grid, its own step everywhere.

    Config: `xi` in [0, 1], `low_steps` >= 1, `enabled` (False: the base scheduler, bit for bit).
    """

    #: The rule that says which base steps remain; replace it to place steps otherwise.
    grid_rule: ClassVar[Callable[..., list[int]]] = staticmethod(thinned_indices)
    #: Whether the grid leaves out the smallest base sigma (the released Euler scheduler does).
    skips_smallest_sigma: ClassVar[bool] = False

    config: Any
    sigmas: Tensor
    timesteps: Tensor
    num_inference_steps: int | None
    step_index: int | None
    _step_index: int | None
    #: Index of the first step that starts below xi; None until `set_timesteps`.
    first_low_step: int | None = None

    def _check_config(self) -> None:
        """Refuse a config that has no meaning; called by `__init__` where `enabled`."""
        xi, low_steps = self.config.xi, self.config.low_steps
        if not 0 <= xi <= 1:
            raise UserError(f"{type(self).__name__}: xi must be in [0, 1], got {xi}")
        if low_steps < 1:
            raise UserError(f"{type(self).__name__}: low_steps must be a whole number >= 1, got {low_steps}")

    def _refuse(self, option: str, because: str) -> None:
        if self.config.get(option):
            given = f"{option}={self.config[option]!r}"
            raise UserError(f"{type(self).__name__} cannot honour {given}: {because}")

    def _require(self, option: str, value: Any) -> None:
        if self.config[option] != value:
            raise UserError(
                f"{type(self).__name__} needs {option}={value!r}, got {self.config[option]!r}; "
                f"pass {option}={value!r} to from_config"
            )

    def _thin(self) -> None:
        """Drop base steps from the grid that the base class has just set, by `grid_rule`."""
        sigmas = self.sigmas[:-1].detach().cpu().numpy().astype(np.float64)
        require_flow_sigmas(sigmas, type(self).__name__)
        # The base class stores float32; xi must meet sigma = xi in the same precision.
        xi = float(np.float32(self.config.xi))
        kept = type(self).grid_rule(sigmas, xi, self.config.low_steps, skip_smallest=self.skips_smallest_sigma)
        self.timesteps = self.timesteps[kept]
        self.sigmas = self.sigmas[[*kept, -1]]
        self.num_inference_steps = len(kept)
        self.first_low_step = int(np.count_nonzero(sigmas[kept] >= xi))


class StableVSMixin(ThinnedGridMixin):
    """The base scheduler on the thinned grid, with the closed-form step of StableVS below xi.

    Config: as `ThinnedGridMixin`, and `noise_factor` f in [0, 1]: the share of fresh noise, beta = f sigma.
    """

    #: DPM-Solver++ hands over one step earlier: where the *next* sigma is below xi.
    hands_over_on_next_sigma: ClassVar[bool] = False
    _init_step_index: Callable[[Any], None]

    def _check_config(self) -> None:
        super()._check_config()
        if not 0 <= self.config.noise_factor <= 1:
            raise UserError(f"{type(self).__name__}: noise_factor must be in [0, 1], got {self.config.noise_factor}")

    def _takes_closed_form(self, timestep: Any) -> bool:
        """Whether the coming step is one of the low regime (counts steps: no look at values on a device)."""
        if not self.config.enabled or self.first_low_step is None:
            return False
        if self.step_index is None:
            self._init_step_index(timestep)
        assert self.step_index is not None
        if not self.hands_over_on_next_sigma:
            return self.step_index >= self.first_low_step
        has_low_steps = self.first_low_step < len(self.timesteps)
        return has_low_steps and self.step_index + 1 >= self.first_low_step

    def _closed_form(
        self, velocity: Float[Tensor, "batch *shape"], x: Float[Tensor, "batch *shape"], generator: Generators
    ) -> Float[Tensor, "batch *shape"]:
        """One closed-form step in float32; the base solver's multistep history is left alone."""
        assert self._step_index is not None
        sigma, sigma_next = self.sigmas[self._step_index], self.sigmas[self._step_index + 1]
        stepped = closed_form_step(
            x.to(torch.float32),
            velocity.to(torch.float32),
            sigma.to(x.device),
            sigma_next.to(x.device),
            noise_factor=self.config.noise_factor,
            generator=generator,
        )
        self._step_index += 1
        return stepped
