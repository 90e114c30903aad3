"""What all schedulers here share: a base scheduler of diffusers whose grid is thinned below xi.

`ThinnedGridMixin` changes the grid (the control arm of every comparison); `StableVSMixin` adds the closed-form step
below xi. One of them precedes a scheduler of diffusers in a class's bases, and the class has the config of both. While
enabled, every step is computed in float32 in both regimes and its result cast back; so the arms differ in grid and
step, not in rounding.

Each module with schedulers imports SchedulerMixin though it does not use it: when diffusers loads a pipeline that was
saved with one of them, it looks for the base class in the module that the pipeline names.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.interpolants import LinearPath
from stablevelocity.sampling.grid import thinned_indices
from stablevelocity.sampling.stablevs import step_weights
from stablevelocity.schedulers.tuned import tuned_options

Generators = torch.Generator | list[torch.Generator] | None


class ThinnedGridMixin:
    """The base scheduler on the thinned grid, its own step everywhere.

    Config: `xi` in [0, 1], `low_steps` >= 1, `enabled` (False: the base scheduler, bit for bit). `calls`: as many steps
    in all, in the place of `low_steps`. `grid`: the noise levels of all steps, in the place of any thinning.
    """

    #: (its own, the other's): what this base and the other kind of base call the shift of their flow sigmas.
    shift_names: ClassVar[tuple[str, str]]
    #: Options of the other kind of base that this one has no place for.
    foreign_options: ClassVar[tuple[str, ...]] = ()
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
    _begin_index: int | None
    #: Index of the first step that starts below xi; None until `set_timesteps`.
    first_low_step: int | None = None
    #: The number of base steps, where that was all that was given and some of them were dropped.
    _requested_steps: int | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # The mixins themselves come here too, before they meet a scheduler.
        if issubclass(cls, ConfigMixin):
            cls.__init__ = _with_config_of_bases(cls)

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

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, *, tuning: Any = None, **options: Any
    ) -> Any:
        """As the base class; a shift that the config has by its other name, `shift` or `flow_shift`, is used.

        `xi="auto"` takes what `stablevelocity tune` chose, from the file `tuning` or from its cache. Raises UserError
        for an option of the other kind of scheduler that would otherwise be dropped in silence.
        """
        if options.get("xi") == "auto":
            options |= tuned_options(cls.__name__, config, tuning)
        elif tuning is not None:
            raise UserError(f"{cls.__name__}: tuning={str(tuning)!r} is read for xi='auto' only, got no such xi")
        own, other = cls.shift_names
        hidden = {}
        if cls._is_enabled(config, options):
            for option in cls.foreign_options:
                if config.get(option):
                    raise UserError(
                        f"{cls.__name__} cannot honour {option}={config[option]!r} of this config: its base has no "
                        "such option; drop it from the config if the schedule without it is meant"
                    )
            if own not in config and other in config:
                options.setdefault(own, config[other])
                # Kept for the way back to the stock class, but not shown to the base class, which would warn of it.
                hidden = {other: config[other]}
                config = {key: value for key, value in config.items() if key != other}
        made = super().from_config(config, return_unused_kwargs, **options)  # type: ignore[misc]
        (made[0] if return_unused_kwargs else made).register_to_config(**hidden)
        return made

    @staticmethod
    def _is_enabled(config: Any, options: dict[str, Any]) -> bool:
        return isinstance(config, dict) and options.get("enabled", config.get("enabled", True))

    def _check_config(self) -> None:
        """Refuse a config that has no meaning; called by `__init__` where `enabled`."""
        xi, low_steps, name = self.config.xi, self.config.low_steps, type(self).__name__
        if not 0 <= xi <= 1:
            raise UserError(f"{name}: xi must be in [0, 1], got {xi}")
        if low_steps < 1:
            raise UserError(f"{name}: low_steps must be a whole number >= 1, got {low_steps}")
        grid, calls = self.config.grid, self.config.calls
        if grid is not None and calls is not None:
            raise UserError(f"{name}: grid of {len(grid)} levels and calls={calls} given; expected one of the two")
        if grid is not None and not grid:
            raise UserError(f"{name}: grid is empty; expected noise levels that fall strictly within (0, 1]")
        if grid:
            _require_falling(np.asarray(grid, dtype=np.float64), f"{name}: grid")

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

    def _refuse_unknown_start(self, start: int | None) -> None:
        if self._requested_steps is not None:
            n, kept = self._requested_steps, len(self.timesteps)
            raise UserError(
                f"{type(self).__name__}: step {start} of {n} asked for is not step {start} of the {kept} kept; "
                f"to start there pass sigmas=np.linspace(1, 1 / {n}, {n})[{start}:] and strength=1"
            )

    def _step(
        self, base_step: Callable[..., Any], model_output: Tensor, timestep: Any, sample: Tensor, generator: Generators
    ) -> Tensor:
        """The next sample in float32; `base_step` is the base class's `step`."""
        return base_step(model_output.float(), timestep, sample.float(), return_dict=False)[0]


def _require_falling(sigmas: Float[np.ndarray, " steps"], name: str) -> None:
    if not (np.all(np.diff(sigmas) < 0) and sigmas[0] <= 1 and sigmas[-1] > 0):
        raise UserError(
            f"{name} needs flow sigmas that decrease strictly within (0, 1], got "
            f"{len(sigmas)} values from {sigmas[0]:.4g} to {sigmas[-1]:.4g}"
        )


def _with_config_of_bases(cls: type[ThinnedGridMixin]) -> Callable[..., None]:
    """The `__init__` of a class whose parameters are those of its scheduler of diffusers, then those of its mixins.

    diffusers reads the keys of a config off the signature of `__init__`. Spelling out some thirty parameters of the
    installed version would lose any that another version adds; so `from_config` of the stock scheduler loses nothing.
    Unknown names raise TypeError as usual.
    """
    init = cls.__init__

    @functools.wraps(init)
    def with_signature(self: Any, *args: Any, **config: Any) -> None:
        init(self, *args, **config)

    parameters: dict[str, inspect.Parameter] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, ConfigMixin | ThinnedGridMixin) and "__init__" in vars(base):
            parameters |= inspect.signature(base.__init__).parameters
    named = [p for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    with_signature.__signature__ = inspect.Signature(sorted(named, key=lambda p: p.kind))  # type: ignore[attr-defined]
    return register_to_config(with_signature)


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
        if not 0 <= self.config.noise_factor <= 1:
            raise UserError(f"{type(self).__name__}: noise_factor must be in [0, 1], got {self.config.noise_factor}")

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
        generator = self.generator if generator is None else generator
        noise = randn_tensor(tuple(x.shape), generator=generator, device=x.device, dtype=x.dtype)
        return weights.state * x + weights.velocity * velocity + weights.noise * noise


class MultistepFlowMixin(ThinnedGridMixin):
    """For multistep schedulers, whose flow sigmas are an option: demanded, and set for the config of an Euler one."""

    shift_names = ("flow_shift", "shift")
    foreign_options = ("invert_sigmas", "stochastic_sampling")

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, *, tuning: Any = None, **options: Any
    ) -> Any:
        """As ThinnedGridMixin; a flow-matching Euler config also brings the flow options, which it need not name."""
        if cls._is_enabled(config, options) and "shift" in config and "use_flow_sigmas" not in config:
            options = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"} | options
        return super().from_config(config, return_unused_kwargs, tuning=tuning, **options)

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
            self._refuse_unknown_start(len(self.timesteps))
        return super().add_noise(original_samples, noise, timesteps)  # type: ignore[misc]
