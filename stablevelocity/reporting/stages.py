"""The stages of the workflow as a reader thinks of them: which a study has, what each reads, and where it is drawn."""

import functools
from typing import Any, NamedTuple

import yaml

from stablevelocity.reporting.results import DataFrame
from stablevelocity.reporting.templates import TEMPLATES
from stablevelocity.study import Study


@functools.cache
def _stages() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((TEMPLATES / "stages.yaml").read_text())


def _parts(study: Study) -> dict[str | None, bool]:
    """What stages.yaml tells studies apart by."""
    arms = bool(study.arms)
    return {
        None: True,
        "arms": arms,
        "aligned": any(arm.alignment or arm.class_token for arm in study.arms.values()),
        "toy": arms and study.toy is not None,
        "exact_flow": study.exact_flow is not None,
        "gradients": study.gradient_variance is not None,
        "pretrained": study.pretrained is not None,
    }


def stage_of(rule: str) -> str:
    """The stage of a rule, by the longest beginning that fits; the rule itself when none does."""
    fits = {start: name for name, stage in _stages().items() for start in stage["rules"] if rule.startswith(start)}
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
    parts = _parts(study)
    names = [name for name, stage in _stages().items() if parts[stage.get("of")]]
    after = {name: tuple(one for one in _stages()[name].get("after", ()) if one in names) for name in names}
    if study.auto():  # numbers that the training takes from the curve of the latents
        after["training"] += ("variance",)
    layers: dict[str, int] = {}
    for name in names:
        layers[name] = 1 + max((layers[before] for before in after[name]), default=-1)
    nodes = {}
    for name in names:
        beside = [other for other in names if layers[other] == layers[name]]
        place = (beside.index(name) + 0.5) / len(beside)
        nodes[name] = Node(name, layers[name], place, _note(name, durations), after[name])
    return nodes


def _note(name: str, durations: DataFrame) -> Any:
    if durations is None:
        return ""
    own = durations[durations["name"].map(stage_of) == name]
    return f"{own['jobs'].sum()} jobs, {own['seconds'].sum():,.0f} s" if len(own) else ""
