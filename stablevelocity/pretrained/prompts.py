"""Prompts of the two benchmarks, read from their official files, and the digit benchmark in the same form.

GenEval: one JSON object per line with `tag`, `include`, `exclude` and `prompt` (Ghosh et al. 2023). T2V-CompBench: one
prompt per line, a file per category (Sun et al. 2024). A digit prompt is a GenEval line whose classes are the digits'
names.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write, read_text
from stablevelocity.pretrained.scenes import NAMES, TASKS, Scene, Task, draw_scene, draw_video_scene
from stablevelocity.study.pretrained_settings import VIDEO
from stablevelocity.study.reading import first_problem
from stablevelocity.study.values import NUMBER, Text

Requirement = dict[str, Any]
LARGEST = 2**24  # bytes of a prompt file
LONGEST = 1000  # characters of a prompt


class Clause(BaseModel):
    """Objects that a picture must show, or must not."""

    model_config = ConfigDict(allow_inf_nan=False)

    name: Text = Field(alias="class")
    count: Annotated[int, Field(gt=0, le=100), NUMBER]
    color: Text | None = None
    position: tuple[Literal["left of", "right of", "above", "below"], Annotated[int, Field(ge=0), NUMBER]] | None = None


class Entry(BaseModel):
    """A line of GenEval's metadata; what else stands there is kept."""

    model_config = ConfigDict(extra="allow")

    tag: Task
    include: list[Clause] = Field(min_length=1)
    exclude: list[Clause] = []
    prompt: Text

    @model_validator(mode="after")
    def _clauses_refer_back(self) -> "Entry":
        for place, clause in enumerate(self.include):
            if clause.position and clause.position[1] >= place:
                raise ValueError(f"include.{place}.position: refers to clause {clause.position[1]}, none before it")
        return self


def read_geneval(path: Path | str) -> list[Requirement]:
    """GenEval's `evaluation_metadata.jsonl` (553 lines). Raises UserError, naming a line that is no such object."""
    entries = []
    for number, line in _lines(path):
        entry = _json(path, number, line)
        try:
            Entry.model_validate(entry)
        except ValidationError as error:
            raise UserError(f"{path}: line {number} is not a GenEval entry: {first_problem(error)}") from None
        entries.append(entry)
    return entries


def read_t2v_compbench(path: Path | str, category: str) -> list[Requirement]:
    """A category's prompt file of T2V-CompBench; `tag` is the category."""
    return [{"tag": category, "prompt": prompt} for prompt in read_plain(path)]


def read_benchmark(family: str, path: Path | str, category: str) -> list[Requirement]:
    """The prompts of a family's benchmark."""
    return read_t2v_compbench(path, category) if family in VIDEO else read_geneval(path)


def read_plain(path: Path | str) -> list[str]:
    """A prompt per line, or the prompts of GenEval's metadata."""
    prompts = []
    for number, line in _lines(path):
        entry = _json(path, number, line) if line.startswith("{") else {"prompt": line}
        prompt = entry.get("prompt") if isinstance(entry, dict) else None
        if not isinstance(prompt, str) or not prompt.isprintable() or len(prompt) > LONGEST:
            raise UserError(f"{path}: line {number} is no prompt: printable text of at most {LONGEST} characters")
        prompts.append(prompt)
    return prompts


def digit_prompts(per_task: int, seed: int) -> list[Requirement]:
    """`per_task` prompts of each of GenEval's six tasks, about digits; task by task, without repeats."""
    generator = np.random.default_rng([seed, 3])
    scenes = [_distinct(per_task, functools.partial(draw_scene, task, generator)) for task in TASKS]
    return [digit_requirement(scene) for scenes_of_task in scenes for scene in scenes_of_task]


def digit_video_prompts(count: int, seed: int) -> list[Requirement]:
    """Coloured digits that move, without repeats; `tag` is T2V-CompBench's first category."""
    generator = np.random.default_rng([seed, 4])
    return [
        digit_requirement(scene) | {"tag": "consistent_attr", "moving": scene.moving}
        for scene in _distinct(count, functools.partial(draw_video_scene, generator))
    ]


def digit_requirement(scene: Scene) -> Requirement:
    """The GenEval line of a scene. Of two objects with a relation the second clause is placed by the first."""
    include: list[dict[str, Any]] = []
    ordered = scene.objects[::-1] if scene.relation else scene.objects
    for wanted in ordered:
        clause: dict[str, Any] = {"class": NAMES[wanted.digit], "count": wanted.count}
        if wanted.color:
            clause["color"] = wanted.color
        include.append(clause)
    if scene.relation:
        include[1]["position"] = [scene.relation, 0]
    entry: Requirement = {"tag": scene.task, "include": include, "prompt": scene.caption}
    if scene.task == "counting":
        # As the official file has it: one more than asked for is wrong.
        entry["exclude"] = [{"class": include[0]["class"], "count": include[0]["count"] + 1}]
    return entry


def write_prompts(path: Path | str, prompts: list[Requirement]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(entry) + "\n" for entry in prompts))


def read_prompts(path: Path | str) -> list[Requirement]:
    """What `write_prompts` wrote."""
    return [_json(path, number, line) for number, line in _lines(path)]


def _distinct(count: int, draw: Callable[[], Scene]) -> list[Scene]:
    """Different captions where there are enough (there are ten single objects)."""
    scenes: dict[str, Scene] = {}
    for _ in range(100 * count):
        if len(scenes) == count:
            break
        scene = draw()
        scenes.setdefault(scene.caption, scene)
    return list(scenes.values())


def _lines(path: Path | str) -> list[tuple[int, str]]:
    """Lines that are not empty, by their numbers."""
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path, LARGEST).split("\n"), 1)]
    if not (lines := [(number, line) for number, line in lines if line]):
        raise UserError(f"{path}: holds no prompt")
    return lines


def _json(path: Path | str, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(f"{path}: line {number} is not JSON") from None
