"""A study file, read and checked as one: `load_study("config/digits.yaml")`."""

import difflib
import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from stablevelocity.errors import UserError
from stablevelocity.study.pretrained_settings import Pretrained
from stablevelocity.study.settings import (
    Alignment,
    Arm,
    Autoencoder,
    Encoder,
    Evaluation,
    Images,
    Name,
    Sampler,
    Sampling,
    Section,
    StableVM,
    Toy,
    Training,
    Variance,
)


class Run(Section):
    """One training run, resolved: all that its weights depend on besides the data."""

    name: str
    arm: str
    seed: int
    objective: str
    stablevm: StableVM | None
    alignment: Alignment | None
    class_token: bool
    training: Training

    @property
    def steps(self) -> list[int]:
        """Steps whose weights are kept: the milestones, then the last."""
        return [*self.training.milestones, self.training.steps]


class Study(Section):
    """All that a study is made of. `config/README.md` lists the keys."""

    name: Name = Field(description="the folder under results/")
    images: Images = Images()
    autoencoder: Autoencoder = Autoencoder()
    encoder: Encoder = Encoder()
    variance: Variance = Variance()
    toy: Toy | None = Field(default=Toy(), description="null: no toy experiment")
    training: Training = Training()
    arms: dict[Name, Arm] = Field(default={}, description="none: a study of pretrained models only")
    sampling: Sampling = Sampling()
    evaluation: Evaluation = Evaluation()
    pretrained: Pretrained | None = Field(default=None, description="large models, or tiny ones of the same classes")
    chosen_by_fid: dict[str, str] = Field(
        default={},
        description="settings chosen by looking at FID, and on which runs; told with the claims",
    )

    @model_validator(mode="after")
    def _names_fit(self) -> "Study":
        if not self.arms:
            if self.pretrained is None:
                raise ValueError("arms: a study needs arms, or a section pretrained")
            return self
        _known(self.sampling.main, self.sampling.samplers, "sampling.main", "sampler")
        for sampler in self.sampling.arms:
            _known(sampler, self.sampling.samplers, "sampling.arms", "sampler")
        named = [(f"sampling.arms.{key}", arm) for key, arms in self.sampling.arms.items() for arm in arms]
        for where, arm in [*named, *(("sampling.sweep.arms", arm) for arm in self.sampling.sweep.arms)]:
            _known(arm, self.arms, where, "arm")
        for name in self.arms:
            self._fits_latents(name, self.arm_training(name))
        if self.evaluation.extractor == "inception" and self.evaluation.weights is None:
            raise ValueError("evaluation.weights: the extractor inception needs the file of its weights")
        # The Inception score takes ten splits; precision and recall the k-th other image of a set.
        least = max(10, self.evaluation.neighbours + 1)
        sets = {"sampling.images": self.sampling.images, "sampling.sweep.images": self.sampling.sweep.images}
        for key, images in sets.items():
            if images < least:
                raise ValueError(
                    f"{key}: {images} images, but the metrics need at least {least} "
                    f"(10 splits of the Inception score, more than evaluation.neighbours {self.evaluation.neighbours})"
                )
        return self

    def _fits_latents(self, arm: str, training: Training) -> None:
        """Images are halved per level of an autoencoder trained here, then cut into patches."""
        if self.autoencoder.pretrained is None:
            model = training.model
            patch = int(model.name.rsplit("/", 1)[1]) if model.name else model.patch
            step = patch * 2 ** (len(self.autoencoder.widths) - 1)
            if self.images.size % step:
                raise ValueError(
                    f"images.size: {self.images.size} is no multiple of {step}, what the autoencoder's "
                    f"{len(self.autoencoder.widths)} levels and patch {patch} of arm {arm} divide it by"
                )

    def arm_training(self, arm: str) -> Training:
        """`training` with the arm's own values."""
        merged = _merge(self.training.model_dump(), self.arms[arm].training)
        try:
            return Training.model_validate(merged)
        except ValidationError as error:
            raise ValueError(f"arms.{arm}.training.{first_problem(error, Training)}") from None

    def runs(self) -> dict[str, Run]:
        """Every training run by name, `<arm>-s<seed>`."""
        runs = {}
        for name, arm in self.arms.items():
            training = self.arm_training(name)
            for seed in training.seeds:
                # Fields that cannot change the weights of this run are left out, so editing them re-trains nothing.
                runs[f"{name}-s{seed}"] = Run(
                    name=f"{name}-s{seed}",
                    arm=name,
                    seed=seed,
                    objective=arm.objective,
                    stablevm=arm.stablevm if arm.objective == "stablevm" else None,
                    alignment=arm.alignment,
                    class_token=arm.class_token,
                    training=training.model_copy(update={"seeds": [seed]}),
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
        arms = self.sampling.sweep.arms or list(self.arms)
        return [next(run.name for run in self.runs().values() if run.arm == arm) for arm in arms]

    def check_paths(self) -> None:
        """Raise UserError, one line that names the key, when a file or folder that the study names is missing.

        Apart from reading a study, so that one can be planned on a machine without its data.
        """
        paths = {
            "images.path": self.images.path,
            "encoder.path": self.encoder.path,
            "evaluation.weights": self.evaluation.weights,
            "evaluation.reference": self.evaluation.reference,
        }
        for name, family in (self.pretrained.families if self.pretrained else {}).items():
            paths |= {f"pretrained.families.{name}.{key}": getattr(family, key) for key in ("prompts", "folder")}
        for key, path in paths.items():
            if path is not None and not path.exists():
                raise UserError(f"{key}: there is no {str(path)!r}")

    def sampler(self, name: str) -> Sampler:
        return self.sampling.samplers[name]


def load_study(path: Path | str) -> Study:
    """Read a study file (YAML or JSON).

    Raises UserError, one line that names the key, when the file is not a valid study.
    """
    path = Path(path)
    return parse_study(read_yaml(path), str(path))


class _Loader(yaml.SafeLoader):
    """YAML whose mappings name no key twice: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise UserError(f"line {key.start_mark.line + 1}: the key {key.value!r} stands twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML or JSON file. Raises UserError, with the line, when it is not YAML or repeats a key."""
    try:
        return yaml.load(path.read_text(), _Loader)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}:{where} is not YAML ({getattr(error, 'problem', error)})") from None


def parse_study(content: Any, source: str = "study") -> Study:
    """Check the content of a study file; `source` names it in the error."""
    if not isinstance(content, dict):
        raise UserError(f"{source}: expected a mapping of sections, given {type(content).__name__}")
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{source}: {first_problem(error, Study)}") from None


def first_problem(error: ValidationError, model: type[Section]) -> str:
    """The first problem of a pydantic error in one line: key, problem, what was given."""
    problems = error.errors()
    first = problems[0]
    location = first["loc"]
    if location[-1:] == ("[key]",):  # a key that is no name; it is the input
        location = location[:-2]
    where = ".".join(shown(part) for part in location)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(first["loc"][-1]), _keys(model, first["loc"][:-1]), 1)
        message = "no such key" + (f"; did you mean {close[0]!r}?" if close else "")
    elif first["type"] not in ("value_error", "missing"):
        message += f", given {shortened(repr(first['input']))}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    # A check of a whole section starts its message with the key that it is about.
    separator = "." if where and first["type"] == "value_error" and message.partition(":")[0].isidentifier() else ": "
    return f"{where}{separator}{message}{more}" if where else f"{message}{more}"


def shown(key: Any) -> str:
    """A key for an error line, whatever it holds."""
    return shortened(str(key) if str(key).isprintable() else repr(key))


def shortened(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."


def _keys(model: Any, location: tuple) -> list[str]:
    """Keys that the section at `location` knows."""
    schema = model.model_json_schema()
    node = schema
    for part in location:
        for choice in [node, *node.get("anyOf", [])]:
            if "$ref" in choice:
                choice = schema["$defs"][choice["$ref"].rsplit("/", 1)[1]]
            if str(part) in choice.get("properties", {}):
                node = choice["properties"][str(part)]
                break
            # Of a mapping by names, or by any key.
            named = next(iter(choice.get("patternProperties", {}).values()), choice.get("additionalProperties"))
            if isinstance(named, dict):
                node = named
                break
    for choice in [node, *node.get("anyOf", [])]:
        if "$ref" in choice:
            choice = schema["$defs"][choice["$ref"].rsplit("/", 1)[1]]
        if "properties" in choice:
            return list(choice["properties"])
    return []


def _known(name: str, known: Any, where: str, kind: str) -> None:
    if name not in known:
        raise ValueError(f"{where}: unknown {kind} {name!r}; there are {', '.join(known)}")


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
