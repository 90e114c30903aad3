"""Prompts of the two benchmarks, read from their official files, and the digit benchmark in the same form.

GenEval: one JSON object per line with `tag`, `include`, `exclude` and `prompt` (Ghosh et al. 2023). T2V-CompBench: one
prompt per line, a file per category (Sun et al. 2024). A digit prompt is a GenEval line whose classes are the digits'
names.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write
from stablevelocity.pretrained.scenes import NAMES, TASKS, Scene, draw_scene, draw_video_scene

Requirement = dict[str, Any]


def read_geneval(path: Path | str) -> list[Requirement]:
    """GenEval's `evaluation_metadata.jsonl`, 553 lines in the official file.

    Raises UserError, naming the line, where a line is not such an object.
    """
    entries = []
    for number, line in enumerate(_lines(path), 1):
        try:
            entry = json.loads(line)
            _ = entry["tag"], entry["include"], entry["prompt"]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise UserError(f"{path}: line {number} is not a GenEval entry (tag, include, prompt)") from None
        entries.append(entry)
    return entries


def read_t2v_compbench(path: Path | str, category: str) -> list[Requirement]:
    """A category's prompt file of T2V-CompBench; `tag` is the category."""
    return [{"tag": category, "prompt": line.strip()} for line in _lines(path)]


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
    things = scene.objects[::-1] if scene.relation else scene.objects
    for thing in things:
        clause: dict[str, Any] = {"class": NAMES[thing.digit], "count": thing.count}
        if thing.color:
            clause["color"] = thing.color
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
    return [json.loads(line) for line in _lines(path)]


def _distinct(count: int, draw: Callable[[], Scene]) -> list[Scene]:
    """Different captions where there are enough (there are ten single objects)."""
    scenes: dict[str, Scene] = {}
    for _ in range(100 * count):
        if len(scenes) == count:
            break
        scene = draw()
        scenes.setdefault(scene.caption, scene)
    return list(scenes.values())


def _lines(path: Path | str) -> list[str]:
    try:
        return [line for line in Path(path).read_text().splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
