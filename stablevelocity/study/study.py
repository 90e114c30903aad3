"""A study: its sections as one, and what follows from them. Read by `stablevelocity.study.load`."""

import json

from pydantic import Field, ValidationError, model_validator

from stablevelocity.study import settings
from stablevelocity.study.experiment_settings import ExactFlow, GradientVariance, Toy, Variance
from stablevelocity.study.pretrained_settings import Pretrained
from stablevelocity.study.reading import first_problem
from stablevelocity.study.values import Name


class Run(settings.Section):
    """One training run, resolved: all that its weights depend on besides the data."""

    name: str
    arm: str
    seed: int
    objective: str
    stablevm: settings.StableVM | None
    alignment: settings.Alignment | None
    class_token: bool
    training: settings.Training
    intervals: dict[str, tuple[float, float]] = Field(
        default={},
        exclude_if=lambda value: not value,
        description="of the numbers that were auto, by their key",
    )

    @property
    def waits_for_curve(self) -> bool:
        """Whether a number is "auto" and the variance curve that gives it is not known yet."""
        return any(getattr(one, one.number) == "auto" for one in (self.stablevm, self.alignment) if one is not None)

    @property
    def steps(self) -> list[int]:
        """Steps whose weights are kept: the milestones, then the last."""
        return [*self.training.milestones, self.training.steps]


class Study(settings.Section):
    """All that a study is made of. `config/README.md` lists the keys."""

    name: Name = Field(description="the folder under results/")
    images: settings.Images = settings.Images()
    autoencoder: settings.Autoencoder = settings.Autoencoder()
    encoder: settings.Encoder = settings.Encoder()
    variance: Variance = Variance()
    toy: Toy | None = Field(default=Toy(), description="null: no toy experiment")
    exact_flow: ExactFlow | None = Field(default=None, description="null: no experiment on exact velocities")
    training: settings.Training = settings.Training()
    arms: dict[Name, settings.Arm] = Field(default={}, description="none: a study of pretrained models only")
    gradient_variance: GradientVariance | None = Field(default=None, description="null: not measured")
    sampling: settings.Sampling = settings.Sampling()
    evaluation: settings.Evaluation = settings.Evaluation()
    pretrained: Pretrained | None = Field(default=None, description="large models, or tiny ones of the same classes")
    chosen_by_fid: dict[str, str] = Field(
        default={}, description="settings chosen by looking at FID, and on which runs; told with the claims"
    )

    @model_validator(mode="after")
    def _arms_can_be_trained(self) -> "Study":
        for arm in self.arms:
            self.arm_training(arm)
        return self

    def auto(self) -> dict[str, settings.BySplitPoint]:
        """By key, the sections whose number is "auto" or was it before the variance curve was known."""
        return {
            f"arms.{name}.{part}.{section.number}": section
            for name, arm in self.arms.items()
            for part, section in arm.by_split_point().items()
            if section.is_auto
        }

    def arm_training(self, arm: str) -> settings.Training:
        """`training` with the arm's own values."""
        merged = _merge(self.training.model_dump(), self.arms[arm].training)
        try:
            return settings.Training.model_validate(merged)
        except ValidationError as error:
            raise ValueError(f"arms.{arm}.training.{first_problem(error, settings.Training)}") from None

    def runs(self) -> dict[str, Run]:
        """Every training run by name, `<arm>-s<seed>`."""
        runs = {}
        for name, arm in self.arms.items():
            training = self.arm_training(name)
            parts = arm.by_split_point().items()
            intervals = {f"{key}.{part.number}": part.interval for key, part in parts if part.interval}
            for seed in training.seeds:
                # Fields that cannot change the weights of this run are left out, so editing them re-trains nothing.
                runs[f"{name}-s{seed}"] = Run(
                    name=f"{name}-s{seed}",
                    arm=name,
                    seed=seed,
                    objective=arm.objective,
                    stablevm=None if arm.objective == "cfm" else arm.stablevm,
                    alignment=arm.alignment,
                    class_token=arm.class_token,
                    training=training.model_copy(update={"seeds": [seed]}),
                    intervals=intervals,
                )
        return runs

    def sample_sets(self) -> list[tuple[str, int, str]]:
        """(run, step, sampler) of every set of generated images."""
        return [
            (run.name, step, sampler)
            for run in self.runs().values()
            for step in run.steps
            for sampler in self.sampling.samplers
            if run.arm in self.sampling.arms.get(sampler, self.arms)
        ]

    def sweep_runs(self) -> list[str]:
        """The first seed of every swept arm."""
        return self._first_runs(self.sampling.sweep.arms or list(self.arms))

    def gradient_runs(self) -> list[str]:
        """The first seed of every arm whose gradients are measured."""
        return self._first_runs(self.gradient_variance.arms) if self.gradient_variance else []

    def _first_runs(self, arms: list[str]) -> list[str]:
        return [next(run.name for run in self.runs().values() if run.arm == arm) for arm in arms]

    def sampler(self, name: str) -> settings.Sampler:
        return self.sampling.samplers[name]


def _merge(base: dict, change: dict) -> dict:
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def study_json(study: Study) -> str:
    """The resolved study, defaults included, as it is kept in results/<study>/study.json."""
    return json.dumps(study.model_dump(mode="json"), indent=2) + "\n"


def study_schema() -> str:
    """JSON schema of study files, as committed in config/study.schema.json."""
    return json.dumps(Study.model_json_schema(), indent=2) + "\n"
