"""What all schedulers here share: a base scheduler of diffusers whose grid is thinned below xi.

`ThinnedGridMixin` changes the grid (the control arm of every comparison); `StableVSMixin` adds the closed-form step
below xi. One of them precedes a scheduler of diffusers in a class's bases, and the class has the config of both. While
enabled, every step is computed in float32 in both regimes and its result cast back; so the arms differ in grid and
step, not in rounding.

Each module with schedulers imports SchedulerMixin though it does not use it: when diffusers loads a pipeline that was
saved with one of them, it looks for the base class in the module that the pipeline names.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.interpolants import LinearPath
from stablevelocity.sampling.grid import thinned_indices
from stablevelocity.sampling.stablevs import step_weights
from stablevelocity.schedulers.config import FlowConfigMixin, config_in_force

Generators = torch.Generator | list[torch.Generator] | None


class ThinnedGridMixin(FlowConfigMixin):
    """The base scheduler on the thinned grid, its own step everywhere.

    Config: `xi` in [0, 1], `low_steps` >= 1, `enabled` (False: the base scheduler, bit for bit). `calls`: as many steps
    in all, in the place of `low_steps`. `grid`: the noise levels of all steps, in the place of any thinning.
    """

    #: The rule that says which base steps remain; replace it to place steps otherwise.
    grid_rule: ClassVar[Callable[..., list[int]]] = staticmethod(thinned_indices)
    #: Whether the grid leaves out the smallest base sigma (the released Euler scheduler does).
    skips_smallest_sigma: ClassVar[bool] = False

    sigmas: Tensor
    timesteps: Tensor
    num_inference_steps: int | None
    step_index: int | None
    _step_index: int | None
    _begin_index: int | None
    #: Index of the first step that starts below xi; None until `set_timesteps`.
    first_low_step: int | None = None
    #: The number of base steps, where that was all that was given and some of them were dropped.
    _requested_steps: int | None = None

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

    def _check_config(self) -> None:
        """Refuse a config that has no meaning; called by `__init__` where `enabled`."""
        name, grid, calls = type(self).__name__, self.config.grid, self.config.calls
        self._check_share("xi")
        for option in ("low_steps", "calls"):
            value = self.config[option]
            if not (_is_whole(value) and value >= 1) and not (option == "calls" and value is None):
                raise UserError(f"{name}: {option} must be a whole number >= 1, got {value!r}")
        if grid is not None and calls is not None:
            raise UserError(f"{name}: grid and calls={calls} given; expected one of the two")
        if grid is not None and not (isinstance(grid, list | tuple) and all(map(_is_number, grid))):
            raise UserError(f"{name}: grid must be a list of numbers, got {grid!r}")
        if grid is not None and not grid:
            raise UserError(f"{name}: grid is empty; expected noise levels that fall strictly within (0, 1]")
        if grid:
            _require_falling(np.asarray(grid, dtype=np.float64), f"{name}: grid")

    def _check_steps(self, steps: Any, levels: Any = None) -> None:
        """Refuse a number of steps that is none, or an empty list of sigmas or timesteps."""
        if (levels is None and not (_is_whole(steps) and steps > 0)) or (levels is not None and not len(levels)):
            given = steps if levels is None else "an empty list"
            raise UserError(f"{type(self).__name__}: {given!r} steps given, expected a whole number of at least 1")

    def base_sigmas(self, steps: int) -> Float[np.ndarray, " steps"]:
        """Flow sigmas of `steps` steps before the shift: `set_timesteps(sigmas=...)` makes the default grid of them.

        For starts midway: `base_sigmas(30)[12:]` starts where the stock class starts at its step 12.
        """
        raise NotImplementedError

    def _thin(self, requested: int | None) -> None:
        """Drop base steps from the grid that the base class has just set, by `grid_rule`.

        `requested` is the number of steps where that is all the caller gave, None where sigmas or timesteps were given.
        """
        sigmas = self.sigmas[:-1].detach().cpu().numpy().astype(np.float64)
        _require_falling(sigmas, type(self).__name__)
        # The base class stores float32; xi must meet sigma = xi in the same precision.
        xi = float(np.float32(self.config.xi))
        if self.config.grid is not None:
            self._place_grid(self.config.grid)
        else:
            low_steps, calls = self.config.low_steps, self.config.calls
            if calls is not None:
                low_steps = self._low_steps_of(calls, sigmas, xi)
            kept = type(self).grid_rule(sigmas, xi, low_steps, skip_smallest=self.skips_smallest_sigma)
            self.timesteps = self.timesteps[kept]
            self.sigmas = self.sigmas[[*kept, -1]]
        self.num_inference_steps = len(self.timesteps)
        self.first_low_step = int(np.count_nonzero(self.sigmas[:-1].cpu().numpy() >= np.float32(xi)))
        self._requested_steps = requested if self.num_inference_steps != len(sigmas) else None

    def _place_grid(self, grid: list[float]) -> None:
        """Put the steps at these noise levels; one that is a base level, to float32, keeps its timestep."""
        base, wanted = self.sigmas[:-1], torch.tensor(grid, dtype=self.sigmas.dtype, device=self.sigmas.device)
        distance, nearest = (base - wanted[:, None]).abs().min(dim=1)
        is_base = distance < 1e-6
        self.sigmas = torch.cat([torch.where(is_base, base[nearest], wanted), self.sigmas[-1:]])
        is_base, nearest, wanted = (value.to(self.timesteps.device) for value in (is_base, nearest, wanted))
        others = (wanted * self.config.num_train_timesteps).to(self.timesteps.dtype)
        self.timesteps = torch.where(is_base, self.timesteps[nearest], others)

    def _low_steps_of(self, calls: int, sigmas: Float[np.ndarray, " steps"], xi: float) -> int:
        """How many steps below xi make `calls` in all."""
        high = int(np.count_nonzero(sigmas >= xi))
        if calls <= high:
            raise UserError(
                f"{type(self).__name__}: calls={calls}, but {high} of {len(sigmas)} base steps stand at or above "
                f"xi={xi:.4g}; expected more than {high} calls, or a larger xi"
            )
        return calls - high

    def set_begin_index(self, begin_index: int = 0) -> None:
        """As the base class: where a run starts, counted in steps of the thinned grid.

        Raises UserError for a start after the first step where only a number of steps was given: a pipeline counts
        that start in the steps it asked for, and the grid holds fewer.
        """
        if begin_index:
            self._refuse_unknown_start(begin_index)
        super().set_begin_index(begin_index)  # type: ignore[misc]

    def _init_step_index(self, timestep: Any) -> None:
        super()._init_step_index(timestep)  # type: ignore[misc]
        # Pipelines that set no begin index (video to video) start at the timestep they sliced off.
        if self._begin_index is None and self._requested_steps is not None and timestep != self.timesteps[0]:
            self._refuse_unknown_start(self.step_index)

    def _check_share(self, option: str) -> None:
        value = self.config[option]
        if not (_is_number(value) and 0 <= value <= 1):
            raise UserError(f"{type(self).__name__}: {option} must be in [0, 1], got {value!r}")

    def _refuse_unknown_start(self, start: int | None) -> None:
        if self._requested_steps is None:
            return
        n, kept, name = self._requested_steps, len(self.timesteps), type(self).__name__
        if start is None:
            raise UserError(
                f"{name}: a start after the {kept} steps that are kept of {n} asked for; a pipeline that takes sigmas "
                f"starts by sigmas=pipe.scheduler.base_sigmas({n})[start:] and strength=1, another needs enabled=False"
            )
        raise UserError(
            f"{name}: step {start} of {n} asked for is not step {start} of the {kept} kept; "
            f"to start there pass sigmas=pipe.scheduler.base_sigmas({n})[{start}:] and strength=1"
        )

    def _step(
        self, base_step: Callable[..., Any], model_output: Tensor, timestep: Any, sample: Tensor, generator: Generators
    ) -> Tensor:
        """The next sample in float32; `base_step` is the base class's `step`."""
        return base_step(model_output.float(), timestep, sample.float(), return_dict=False)[0]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or isinstance(value, float | np.floating)


def _require_falling(sigmas: Float[np.ndarray, " steps"], name: str) -> None:
    if not (np.all(np.diff(sigmas) < 0) and sigmas[0] <= 1 and sigmas[-1] > 0):
        raise UserError(
            f"{name} needs flow sigmas that decrease strictly within (0, 1], got "
            f"{len(sigmas)} values from {sigmas[0]:.4g} to {sigmas[-1]:.4g}"
        )


class StableVSMixin(ThinnedGridMixin):
    """The base scheduler on the thinned grid, with the closed-form step of StableVS below xi.

    Config: as `ThinnedGridMixin`, and `noise_factor` f in [0, 1]: the share of fresh noise, beta = f sigma.
    """

    #: DPM-Solver++ switches one step earlier: where the *next* sigma is below xi.
    switches_on_next_sigma: ClassVar[bool] = False
    #: Where the fresh noise of `noise_factor` > 0 comes from when `step` is given no generator: pipelines pass theirs
    #: to the first noise only. One, or a list with one per sample; None is torch's global generator.
    generator: Generators = None

    def __init__(self, *args: Any, noise_factor: float = 0.0, **config: Any):
        super().__init__(*args, **config)

    def _check_config(self) -> None:
        super()._check_config()
        self._check_share("noise_factor")

    def _step(
        self, base_step: Callable[..., Any], model_output: Tensor, timestep: Any, sample: Tensor, generator: Generators
    ) -> Tensor:
        if not self._takes_closed_form(timestep):
            return super()._step(base_step, model_output, timestep, sample, generator)
        return self._closed_form(model_output.float(), sample.float(), generator)

    def _takes_closed_form(self, timestep: Any) -> bool:
        """Whether the coming step is one of the low regime (counts steps: no look at values on a device)."""
        if self.first_low_step is None:
            return False
        if self.step_index is None:
            self._init_step_index(timestep)
        assert self.step_index is not None
        if not self.switches_on_next_sigma:
            return self.step_index >= self.first_low_step
        has_low_steps = self.first_low_step < len(self.timesteps)
        return has_low_steps and self.step_index + 1 >= self.first_low_step

    def _closed_form(
        self, velocity: Float[Tensor, "batch *shape"], x: Float[Tensor, "batch *shape"], generator: Generators
    ) -> Float[Tensor, "batch *shape"]:
        """One closed-form step of the linear path; the base solver's multistep history is left alone."""
        assert self._step_index is not None
        sigma, sigma_next = self.sigmas[self._step_index], self.sigmas[self._step_index + 1]
        self._step_index += 1
        if self.config.noise_factor == 0:
            # `step_weights` are then 1 and the difference, up to rounding; this is Euler's step to the last bit, and
            # needs no value of a sigma that lies on a device.
            return x + (sigma_next - sigma).to(x.device) * velocity
        weights = step_weights(LinearPath(), float(sigma), float(sigma_next), self.config.noise_factor)
        if weights.noise == 0:  # the last step: nothing is drawn
            return weights.state * x + weights.velocity * velocity
        generator = self.generator if generator is None else generator
        noise = randn_tensor(tuple(x.shape), generator=generator, device=x.device, dtype=x.dtype)
        return weights.state * x + weights.velocity * velocity + weights.noise * noise


class MultistepFlowMixin(ThinnedGridMixin):
    """For multistep schedulers, whose flow sigmas are an option: demanded, and set for the config of an Euler one."""

    shift_names = ("flow_shift", "shift")
    foreign_options = ("invert_sigmas", "stochastic_sampling")
    foreign_keys = ("shift",)

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, *, tuning: Any = None, **options: Any
    ) -> Any:
        """As ThinnedGridMixin; a flow-matching Euler config also brings the flow options, which it need not name."""
        config = config_in_force(config)
        enabled = isinstance(config, dict) and options.get("enabled", config.get("enabled", True))
        if enabled and "shift" in config and "use_flow_sigmas" not in config:
            options = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"} | options
        return super().from_config(config, return_unused_kwargs, tuning=tuning, **options)

    def index_for_timestep(self, timestep: Any, schedule_timesteps: Tensor | None = None) -> int:
        """As the base class, but the first of equal timesteps: those are whole numbers, and a steep shift makes equals.

        The base class takes the second, and so runs out of sigmas at the last step.
        """
        if not self.config.enabled:
            return super().index_for_timestep(timestep, schedule_timesteps)  # type: ignore[misc]
        schedule = self.timesteps if schedule_timesteps is None else schedule_timesteps
        equal = (schedule == timestep).nonzero()
        return int(equal[0]) if len(equal) else len(self.timesteps) - 1

    def _check_config(self) -> None:
        super()._check_config()
        self._require("use_flow_sigmas", True)
        self._require("prediction_type", "flow_prediction")
        self._require("final_sigmas_type", "zero")
        for option in ("use_exponential_sigmas", "use_beta_sigmas"):
            self._refuse(option, "the base class then leaves flow sigmas for variance-preserving ones")
        self._refuse("thresholding", "the closed form below xi has no predicted picture to clip")

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """As the base class; a pipeline that sliced all timesteps off is refused as `set_begin_index` refuses it."""
        if len(timesteps) == 0:
            self._refuse_unknown_start(None)
        return super().add_noise(original_samples, noise, timesteps)  # type: ignore[misc]
