"""The stages of the workflow as a reader thinks of them: which a study has, what each reads, and where it is drawn."""

from collections.abc import Callable
from typing import Any, NamedTuple

from stablevelocity.reporting.results import DataFrame
from stablevelocity.study import Study


class Stage(NamedTuple):
    """`rules`: how the names of its rules begin. `after`: the stages that it reads, but not what these read."""

    rules: tuple[str, ...]
    after: tuple[str, ...] = ()
    present: Callable[[Study], bool] = lambda study: bool(study.arms)


def _aligned(study: Study) -> bool:
    return any(arm.alignment or arm.class_token for arm in study.arms.values())


def _pretrained(study: Study) -> bool:
    return study.pretrained is not None


# Kept by hand, since Snakemake's own graph is of rules and takes seconds; a test compares the two.
STAGES = {
    "images": Stage(("image_",)),
    "autoencoder": Stage(("autoencoder",), ("images",)),
    "encoder": Stage(("encoder",), ("images",), _aligned),
    "classifier and reference": Stage(("judge", "classifier", "reference", "floor", "real_baseline"), ("images",)),
    "latents": Stage(("latent_",), ("autoencoder",)),
    "features": Stage(("feature_",), ("encoder",), _aligned),
    "variance": Stage(("gmm_variance", "data_variance", "variance_"), ("latents",)),
    "toy experiment": Stage(("toy",), (), lambda study: study.toy is not None and bool(study.arms)),
    "exact flows": Stage(("exact_flow", "latent_spectrum"), ("latents",), lambda study: study.exact_flow is not None),
    "training": Stage(("train",), ("latents", "features")),
    "alignment": Stage(("alignment_curve",), ("training",), _aligned),
    "gradients": Stage(("gradient_",), ("training",), lambda study: study.gradient_variance is not None),
    "samples": Stage(("sample_",), ("training",)),
    "sweep": Stage(("sweep",), ("training", "classifier and reference")),
    "metrics": Stage(("fidelity",), ("samples", "classifier and reference")),
    "models": Stage(("tiny_model", "prompts"), (), _pretrained),
    "pictures": Stage(("generate_arms", "compare_videos"), ("models",), _pretrained),
    "scores": Stage(("score_family",), ("pictures",), _pretrained),
    "checks": Stage(("judge_accuracy", "detector", "scheduler_errors"), (), _pretrained),
    "tables and figures": Stage(
        ("table", "paper", "figure"),
        ("variance", "toy experiment", "exact flows", "alignment", "gradients", "sweep", "metrics", "scores", "checks"),
        lambda study: True,
    ),
    "claims": Stage(("claims",), ("tables and figures",), lambda study: True),
    "report": Stage(("report",), ("claims",), lambda study: True),
}


def stage_of(rule: str) -> str:
    """The stage of a rule, by the longest beginning that fits; the rule itself when none does."""
    fits = {start: name for name, stage in STAGES.items() for start in stage.rules if rule.startswith(start)}
    return fits[max(fits, key=len)] if fits else rule


class Node(NamedTuple):
    """A stage at a `layer`, past all it reads, and a `place` from 0 to 1 across it; `note` says its jobs and time."""

    name: str
    layer: int
    place: float
    note: str
    after: tuple[str, ...]


def graph(study: Study, durations: DataFrame) -> dict[str, Node]:
    """The stages of a study by name; `durations` (rule, jobs, seconds) may be None."""
    stages = {name: stage for name, stage in STAGES.items() if stage.present(study)}
    if study.auto():  # numbers that the training takes from the curve of the latents
        stages["training"] = Stage(STAGES["training"].rules, (*STAGES["training"].after, "variance"))
    layers: dict[str, int] = {}
    for name, stage in stages.items():
        layers[name] = 1 + max((layers[before] for before in stage.after if before in stages), default=-1)
    nodes: dict[str, Node] = {}
    for name, stage in stages.items():
        beside = [other for other in stages if layers[other] == layers[name]]
        place = (beside.index(name) + 0.5) / len(beside)
        after = tuple(before for before in stage.after if before in stages)
        nodes[name] = Node(name, layers[name], place, _note(name, durations), after)
    return nodes


def _note(name: str, durations: DataFrame) -> Any:
    if durations is None:
        return ""
    own = durations[durations["name"].map(stage_of) == name]
    return f"{own['jobs'].sum()} jobs, {own['seconds'].sum():,.0f} s" if len(own) else ""
