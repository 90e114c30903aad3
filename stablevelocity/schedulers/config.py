"""From the config of one scheduler to another: what a flow-matching schedule is called by each base of diffusers."""

import functools
import inspect
import json
from collections.abc import Callable
from typing import Any, ClassVar

from diffusers.configuration_utils import ConfigMixin, register_to_config

from stablevelocity.errors import UserError
from stablevelocity.schedulers.tuned import tuned_options


class FlowConfigMixin:
    """A scheduler whose config is its base's and its mixins', and which takes the config of the other kind of base."""

    #: (its own, the other's): what this base and the other kind of base call the shift of their flow sigmas.
    shift_names: ClassVar[tuple[str, str]]
    #: Options of the other kind of base that this one has no place for.
    foreign_options: ClassVar[tuple[str, ...]] = ()
    #: Keys that only the other kind of base knows, and whose meaning this one has by other means.
    foreign_keys: ClassVar[tuple[str, ...]]
    config: Any

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # The mixins themselves come here too, before they meet a scheduler.
        if issubclass(cls, ConfigMixin):
            cls.__init__ = _with_config_of_bases(cls)

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, *, tuning: Any = None, **options: Any
    ) -> Any:
        """As the base class; a shift that the config has by its other name, `shift` or `flow_shift`, is used.

        `config` may be a scheduler itself, whose shift in force (after `set_shift`) is then used.

        `xi="auto"` takes what `stablevelocity tune` chose, from the file `tuning` or from its cache. Raises UserError
        for an option of the other kind of scheduler that would otherwise be dropped in silence.
        """
        config = config_in_force(config)
        known = inspect.signature(cls.__init__).parameters
        if unknown := [name for name in options if name not in known and not return_unused_kwargs]:
            raise UserError(f"{cls.__name__}: {unknown[0]}={options[unknown[0]]!r} is no option of this scheduler")
        if options.get("xi") == "auto":
            if given := [name for name in ("low_steps", "grid", "calls") if name in options]:
                raise UserError(f"{cls.__name__}: xi='auto' chooses {given[0]} too; leave it out")
            options |= tuned_options(cls.__name__, config, tuning)
        elif tuning is not None:
            raise UserError(f"{cls.__name__}: tuning={str(tuning)!r} is read for xi='auto' only, got no such xi")
        own, other = cls.shift_names
        kept = {}
        if isinstance(config, dict):
            enabled = options.get("enabled", config.get("enabled", True))
            if enabled:
                cls._check_source(config, options)
                if own in config or other in config:
                    options.setdefault(own, config[_live_shift(config)])
            if enabled or own in options:
                # Kept for the way back to the stock class, but not shown to the base class, which would warn of them.
                kept = {name: config[name] for name in cls.foreign_keys if name in config}
                config = {name: value for name, value in config.items() if name not in kept}
        made = super().from_config(config, return_unused_kwargs, **options)  # type: ignore[misc]
        scheduler = made[0] if return_unused_kwargs else made
        if kept:
            scheduler.register_to_config(**kept | ({other: scheduler.config[own]} if other in kept else {}))
        return made

    @classmethod
    def _check_source(cls, config: dict[str, Any], options: dict[str, Any]) -> None:
        """Refuse the config of a model that predicts noise, and options that would be dropped in silence."""
        prediction = (config | options).get("prediction_type")
        flow = (config | options).get("use_flow_sigmas")
        if prediction not in (None, "flow_prediction") or (
            prediction is None and not flow and "beta_schedule" in config
        ):
            of = config.get("_class_name", "another scheduler")
            raise UserError(
                f"{cls.__name__} is for flow-matching models; this config (of {of}, prediction_type "
                f"{prediction or 'epsilon'!r}) is of a model that predicts something else, so keep its scheduler"
            )
        for option in cls.foreign_options:
            if config.get(option):
                raise UserError(
                    f"{cls.__name__} cannot honour {option}={config[option]!r} of this config: its base has no "
                    "such option; drop it from the config if the schedule without it is meant"
                )

    def to_json_string(self) -> str:
        """The config as it is saved, without what is only kept for the way back to another class in memory."""
        content = json.loads(super().to_json_string())  # type: ignore[misc]
        own = {name: value for name, value in content.items() if name not in self.foreign_keys}
        return json.dumps(own, indent=2, sort_keys=True) + "\n"

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


def config_in_force(config: Any) -> Any:
    """The config of a scheduler with the shift that `set_shift` has given it, which its config does not say."""
    if not isinstance(config, ConfigMixin):
        return config
    in_force = dict(config.config)
    if isinstance(shift := getattr(config, "shift", None), int | float) and "shift" in in_force:
        in_force["shift"] = shift
    return in_force


def _live_shift(config: dict[str, Any]) -> str:
    """Which name of the shift is that of the scheduler whose config it is; another's may be kept beside it."""
    if maker := config.get("_class_name"):
        own, other = ("shift", "flow_shift") if "FlowMatch" in maker else ("flow_shift", "shift")
        return own if own in config else other
    # In memory a scheduler's own options come first.
    return next(name for name in config if name in ("shift", "flow_shift"))


def _with_config_of_bases(cls: type[FlowConfigMixin]) -> Callable[..., None]:
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
        if issubclass(base, ConfigMixin | FlowConfigMixin) and "__init__" in vars(base):
            parameters |= inspect.signature(base.__init__).parameters
    named = [p for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    with_signature.__signature__ = inspect.Signature(sorted(named, key=lambda p: p.kind))  # type: ignore[attr-defined]
    return register_to_config(with_signature)
