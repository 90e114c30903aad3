"""What the two multistep bases share: their flow sigmas are an option of theirs, and so are things that flows lack."""

from typing import Any

from torch import Tensor

from stablevelocity.schedulers.thinned import ThinnedGridMixin


class MultistepFlowMixin(ThinnedGridMixin):
    """Demands the flow options of a multistep scheduler, and sets them where the config is that of an Euler one."""

    shift_names = ("flow_shift", "shift")
    foreign_options = ("invert_sigmas", "stochastic_sampling")

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, *, tuning: Any = None, **options: Any
    ) -> Any:
        """As ThinnedGridMixin; a flow-matching Euler config also brings the flow options, which it need not name."""
        if cls._takes_over(config, options) and "shift" in config and "use_flow_sigmas" not in config:
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
