"""Captioned scenes of coloured handwritten digits: the data of the tiny pretrained models.

An image has four cells, each empty or with one digit of scikit-learn's handwritten digits in one of six colours on
black; its caption says what GenEval's prompts say of objects. A video shows one digit that moves straight on. The
digits are split, so that a detector can be tested on digits that no model has seen.
"""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

SIZE = 32
FRAMES = 5
CELL = SIZE // 2
#: Side of a digit in pixels; a cell leaves it two pixels on each side, of which the jitter uses one.
DIGIT = 12
SPEED = 3

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUMERALS = {2: "two", 3: "three", 4: "four"}
COLORS = {
    "red": (255, 40, 40),
    "green": (40, 255, 40),
    "blue": (60, 60, 255),
    "yellow": (255, 255, 40),
    "magenta": (255, 40, 255),
    "cyan": (40, 255, 255),
}
#: Pixels per frame (row, column).
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
#: Where the first of two digits stands as seen from the second: (row, column) of both cells, all choices.
RELATIONS = {
    "left of": [((row, 0), (row, 1)) for row in (0, 1)],
    "right of": [((row, 1), (row, 0)) for row in (0, 1)],
    "above": [((0, column), (1, column)) for column in (0, 1)],
    "below": [((1, column), (0, column)) for column in (0, 1)],
}

#: The six tasks of GenEval.
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
Task = Literal["single_object", "two_object", "counting", "colors", "position", "color_attr"]


@dataclass(frozen=True)
class Object:
    """One class of objects that a scene must show: `count` of them, of `color` where it is said."""

    digit: int
    count: int = 1
    color: str | None = None


@dataclass(frozen=True)
class Scene:
    """What a caption says. `relation` tells where the first object is, seen from the second."""

    task: Task
    objects: tuple[Object, ...]
    relation: str | None = None
    moving: str | None = None

    @property
    def caption(self) -> str:
        words = [_noun_phrase(wanted) for wanted in self.objects]
        if self.moving:
            return f"{words[0]} moving {self.moving}"
        return f" {self.relation or 'and'} ".join(words)


def _noun_phrase(wanted: Object) -> str:
    name = NAMES[wanted.digit]
    if wanted.count > 1:
        return f"{NUMERALS[wanted.count]} {name}{'es' if name.endswith('x') else 's'}"
    return " ".join(word for word in ("a", wanted.color, name) if word)


def draw_scene(task: str, generator: np.random.Generator) -> Scene:
    """A random scene of one of the six tasks; two objects are always two different digits."""
    digits = [int(d) for d in generator.choice(10, 2, replace=False)]
    colors = [str(c) for c in generator.choice(list(COLORS), 2, replace=False)]
    match task:
        case "single_object":
            return Scene("single_object", (Object(digits[0]),))
        case "counting":
            return Scene("counting", (Object(digits[0], count=int(generator.integers(2, 5))),))
        case "colors":
            return Scene("colors", (Object(digits[0], color=colors[0]),))
        case "two_object":
            return Scene("two_object", (Object(digits[0]), Object(digits[1])))
        case "position":
            relation = str(generator.choice(list(RELATIONS)))
            return Scene("position", (Object(digits[0]), Object(digits[1])), relation)
        case "color_attr":
            pair = (Object(digits[0], color=colors[0]), Object(digits[1], color=colors[1]))
            return Scene("color_attr", pair)
    raise ValueError(f"task {task!r}; expected one of {', '.join(TASKS)}")


def draw_video_scene(generator: np.random.Generator) -> Scene:
    """A random coloured digit and a direction."""
    wanted = Object(int(generator.integers(10)), color=str(generator.choice(list(COLORS))))
    return Scene("colors", (wanted,), moving=str(generator.choice(list(DIRECTIONS))))


@functools.cache
def digit_images(split: Literal["train", "held_out"]) -> list[Float[np.ndarray, "count size size"]]:
    """For each digit its images, enlarged to `DIGIT` pixels, in [0, 1]. Every fifth image is held out."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    held_out = np.arange(len(data.target)) % 5 == 0
    chosen = held_out if split == "held_out" else ~held_out
    enlarged: Any = zoom(data.images[chosen] / 16, (1, DIGIT / 8, DIGIT / 8), order=1)
    return [np.clip(enlarged[data.target[chosen] == digit], 0, 1) for digit in range(10)]


def render(
    scene: Scene, generator: np.random.Generator, split: Literal["train", "held_out"] = "train"
) -> UInt8[np.ndarray, "size size 3"]:
    """An image that the caption describes; what it leaves open (place, colour, handwriting) is random."""
    canvas = np.zeros((SIZE, SIZE, 3))
    cells = [(row, column) for row in (0, 1) for column in (0, 1)]
    if scene.relation:
        choices = RELATIONS[scene.relation]
        cells = list(choices[generator.integers(len(choices))])
    else:
        cells = [cells[i] for i in generator.permutation(4)]
    for wanted in scene.objects:
        color = wanted.color or str(generator.choice(list(COLORS)))
        for _ in range(wanted.count):
            row, column = cells.pop(0)
            jitter = generator.integers(-1, 2, 2)
            margin = (CELL - DIGIT) // 2
            top, left = row * CELL + margin + jitter[0], column * CELL + margin + jitter[1]
            canvas[top : top + DIGIT, left : left + DIGIT] += _colored(wanted.digit, color, generator, split)
    return canvas.round().astype(np.uint8)


def render_video(
    scene: Scene, generator: np.random.Generator, split: Literal["train", "held_out"] = "train"
) -> UInt8[np.ndarray, "frames size size 3"]:
    """One digit in straight motion, wholly inside every frame."""
    wanted, step = scene.objects[0], np.array(DIRECTIONS[scene.moving or "left"]) * SPEED
    picture = _colored(wanted.digit, wanted.color or str(generator.choice(list(COLORS))), generator, split)
    travel = step * (FRAMES - 1)
    low, high = np.maximum(0, -travel), SIZE - DIGIT - np.maximum(0, travel)
    start = generator.integers(low, high + 1)
    video = np.zeros((FRAMES, SIZE, SIZE, 3))
    for frame in range(FRAMES):
        top, left = start + frame * step
        video[frame, top : top + DIGIT, left : left + DIGIT] = picture
    return video.round().astype(np.uint8)


def _colored(
    digit: int, color: str, generator: np.random.Generator, split: Literal["train", "held_out"]
) -> Float[np.ndarray, "size size 3"]:
    images = digit_images(split)[digit]
    return images[generator.integers(len(images))][:, :, None] * np.array(COLORS[color])
