"""GenEval's protocol: does an image show the objects, counts, colours and places that its prompt asks for?

Ghosh et al. 2023, "GenEval: An Object-Focused Framework". An image is right or wrong; a task's score is the share of
right images, the overall score the mean of the six tasks. What finds the objects stands apart:
`geneval_detector` (Mask2Former and CLIP, as the official scorer) or the digit detector of the tiny models.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from PIL import Image

from stablevelocity.errors import UserError

Requirement = dict[str, Any]

#: Two boxes count as apart only beyond this share of their summed sides.
POSITION_THRESHOLD = 0.1


@dataclass(frozen=True)
class DetectedObject:
    """One detected object: class, box (left, top, right, bottom) in pixels, confidence, and its colour on demand."""

    name: str
    box: tuple[float, float, float, float]
    confidence: float
    color: Callable[[], str]


@runtime_checkable
class Detector(Protocol):
    """Finds the objects of an image; `tag` is the prompt's task (counting uses a stricter threshold)."""

    def __call__(self, image: np.ndarray, tag: str) -> list[DetectedObject]: ...


def is_correct(requirement: Requirement, objects: list[DetectedObject]) -> bool:
    """Whether the detected objects meet all `include` clauses and none of the `exclude` clauses.

    Of each class the most confident `count` objects are looked at. A colour clause wants all of them in that colour; a
    position clause wants each of them at that side of each object of the clause that it refers to.
    """
    by_class: dict[str, list[DetectedObject]] = {}
    for detected in sorted(objects, key=lambda detected: -detected.confidence):
        by_class.setdefault(detected.name, []).append(detected)
    groups: list[list[DetectedObject]] = []
    for clause in requirement.get("include", []):
        chosen = by_class.get(clause["class"], [])[: clause["count"]]
        if len(chosen) < clause["count"]:
            return False
        if "color" in clause and any(detected.color() != clause["color"] for detected in chosen):
            return False
        if "position" in clause:
            relation, target = clause["position"]
            if any(relation not in relative_position(a.box, b.box) for a in chosen for b in groups[target]):
                return False
        groups.append(chosen)
    return all(len(by_class.get(clause["class"], [])) < clause["count"] for clause in requirement.get("exclude", []))


def relative_position(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> set[str]:
    """Where box `a` is as seen from `b`: up to two of left of, right of, above, below.

    The centres' offset, shortened per axis by a tenth of the summed sides, over its full length; an axis counts beyond
    one half.
    """
    box_a, box_b = np.array(a, float).reshape(2, 2), np.array(b, float).reshape(2, 2)
    offset = box_a.mean(0) - box_b.mean(0)
    sides = np.ptp(box_a, axis=0) + np.ptp(box_b, axis=0)
    apart = np.maximum(np.abs(offset) - POSITION_THRESHOLD * sides, 0) * np.sign(offset)
    if np.all(np.abs(apart) < 1e-3):
        return set()
    dx, dy = apart / np.linalg.norm(offset)
    sides_named = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, holds in sides_named.items() if holds}


def image_folder(root: Path, prompt: int) -> Path:
    """Of a prompt's images, in the official layout."""
    return root / f"{prompt:05d}"


def write_metadata(root: Path, prompt: int, requirement: Requirement) -> Path:
    """`metadata.jsonl` of a prompt's folder; returns its `samples` folder, made."""
    folder = image_folder(root, prompt)
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text(json.dumps(requirement) + "\n")
    return folder / "samples"


def score_folder(root: Path, detector: Detector) -> pd.DataFrame:
    """One row per image of a folder in the official layout: prompt, image, tag, correct, layout.

    `layout` names the detected objects, each with the quarter of the image where its centre lies.
    Raises UserError when there is no image.
    """
    rows = []
    for folder in sorted(path for path in root.iterdir() if path.name.isdigit()):
        requirement = json.loads((folder / "metadata.jsonl").read_text())
        for path in sorted((folder / "samples").glob("*.png")):
            image = np.asarray(Image.open(path).convert("RGB"))
            objects = detector(image, requirement["tag"])
            correct, seen = is_correct(requirement, objects), layout(objects, image.shape[0], image.shape[1])
            rows.append((int(folder.name), int(path.stem), requirement["tag"], correct, seen))
    if not rows:
        raise UserError(f"{root}: no images in GenEval's layout (00000/samples/0000.png ...)")
    return pd.DataFrame(rows, columns=["prompt", "image", "tag", "correct", "layout"])


def layout(objects: list[DetectedObject], height: int, width: int) -> str:
    """Which objects are where, in one order: "cat top left, dog bottom right"."""
    seen = []
    for detected in objects:
        left, top, right, bottom = detected.box
        row, column = "top" if top + bottom < height else "bottom", "left" if left + right < width else "right"
        seen.append(f"{detected.name} {row} {column}")
    return ", ".join(sorted(seen))


def summary(scores: pd.DataFrame) -> dict[str, float]:
    """Share of right images per task, and `overall`, the mean of the tasks."""
    tasks = scores["correct"].astype(float).groupby(scores["tag"].astype(str)).mean()
    return {**{str(tag): float(share) for tag, share in tasks.items()}, "overall": float(tasks.mean())}


def standard_error(scores: pd.DataFrame) -> float:
    """Of `overall`, over prompts (images of one are not independent); NaN where a task has a single prompt."""
    by_prompt = scores["correct"].astype(float).groupby([scores["tag"], scores["prompt"]]).mean()
    tasks = [shares.to_numpy(float) for _, shares in by_prompt.groupby(level="tag")]
    variances = [float(np.var(task, ddof=1)) / len(task) if len(task) > 1 else np.nan for task in tasks]
    return float(np.sqrt(np.sum(variances)) / len(variances))
