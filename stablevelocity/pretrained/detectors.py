"""Reads digits and colours off generated scenes: the detector and colour classifier of the tiny benchmarks.

It stands where GenEval has Mask2Former and CLIP. It sees pixels only, never the prompt. An object is what is bright in
one of the four cells of an image (or anywhere in a frame of a video); a support vector machine, trained on the same
handwriting that the models saw, names the digit and the mean colour names the colour. Its own error on real scenes of
unseen handwriting is measured by `detector_accuracy`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from sklearn.svm import SVC

from stablevelocity.pretrained import scenes
from stablevelocity.pretrained.benchmarks.geneval import DetectedObject, is_correct
from stablevelocity.pretrained.benchmarks.t2v_compbench import answer, consistency, points
from stablevelocity.pretrained.prompts import digit_requirement

#: A cell holds an object if its brightness adds up to this many full pixels (the thinnest digits have about 25).
PRESENT = 12.0


@dataclass(frozen=True)
class Detection:
    """One object: its digit, its colour, and its centre (row, column) in pixels."""

    digit: int
    color: str
    centre: tuple[float, float]


class DigitDetector:
    """Fit once (about two seconds), then `read` images and `read_frame` frames of videos."""

    def __init__(self, seed: int = 0):
        generator = np.random.default_rng(seed)
        crops, labels = [], []
        for digit, images in enumerate(scenes.digit_images("train")):
            for image in images:
                # As a model would draw it: a little off its place, dimmer, blurred by the autoencoder.
                for _ in range(2):
                    canvas = np.zeros((scenes.CELL, scenes.CELL))
                    top, left = generator.integers(1, 4, 2)
                    canvas[top : top + scenes.DIGIT, left : left + scenes.DIGIT] = image * generator.uniform(0.7, 1.0)
                    canvas += generator.normal(0, 0.05, canvas.shape)
                    crops.append(_features(np.clip(canvas, 0, 1)))
                    labels.append(digit)
        self._classifier = SVC(C=5.0).fit(np.stack(crops), labels)

    def read(self, image: UInt8[np.ndarray, "size size 3"]) -> list[Detection]:
        """Objects of an image in reading order of its cells."""
        corners = [(top, left) for top in (0, scenes.CELL) for left in (0, scenes.CELL)]
        cells = [self._read_cell(image, top, left) for top, left in corners]
        return [detection for detection in cells if detection is not None]

    def __call__(self, image: UInt8[np.ndarray, "size size 3"], tag: str) -> list[DetectedObject]:
        """As a GenEval detector: boxes are the digits' extent around their centres, all equally sure."""
        objects = []
        for detection in self.read(image):
            (y, x), half = detection.centre, scenes.DIGIT / 2
            box = (x - half, y - half, x + half, y + half)
            objects.append(DetectedObject(scenes.NAMES[detection.digit], box, 1.0, lambda color=detection.color: color))
        return objects

    def read_frame(self, frame: UInt8[np.ndarray, "size size 3"]) -> Detection | None:
        """The one object of a frame, wherever it is; None for an empty frame."""
        brightness = _brightness(frame)
        if brightness.sum() < PRESENT:
            return None
        middle = _centroid(brightness)
        sides = zip(middle, brightness.shape, strict=True)
        top, left = (int(np.clip(round(m - scenes.CELL / 2 + 0.5), 0, side - scenes.CELL)) for m, side in sides)
        detection = self._read_cell(frame, top, left)
        return detection and replace(detection, centre=middle)

    def _read_cell(self, image: np.ndarray, top: int, left: int) -> Detection | None:
        cell = image[top : top + scenes.CELL, left : left + scenes.CELL]
        brightness = _brightness(cell)
        if brightness.sum() < PRESENT:
            return None
        digit = int(self._classifier.predict(_features(brightness)[None])[0])
        row, column = _centroid(brightness)
        return Detection(digit, _color(cell, brightness), (top + row, left + column))


def _brightness(pixels: np.ndarray) -> Float[np.ndarray, "height width"]:
    """The largest channel in [0, 1], the autoencoder's haze on black removed."""
    value = pixels.max(-1) / 255
    return np.where(value > 0.2, value, 0.0)


def _features(brightness: np.ndarray) -> np.ndarray:
    """The cell shifted so that its centroid is in the middle, and scaled to one maximum."""
    middle = _centroid(brightness)
    shift = [round((side - 1) / 2 - m) for m, side in zip(middle, brightness.shape, strict=True)]
    moved = np.roll(brightness, shift, axis=(0, 1))
    return (moved / max(moved.max(), 1e-6)).ravel()


def _centroid(brightness: np.ndarray) -> tuple[float, float]:
    rows, columns = np.indices(brightness.shape)
    total = max(float(brightness.sum()), 1e-9)
    return float((rows * brightness).sum() / total), float((columns * brightness).sum() / total)


def _color(cell: np.ndarray, brightness: np.ndarray) -> str:
    """The named colour nearest in direction to the bright pixels' mean."""
    mean = (cell.reshape(-1, 3) * brightness.reshape(-1, 1)).sum(0)
    mean = mean / max(float(np.linalg.norm(mean)), 1e-9)
    names = list(scenes.COLORS)
    values = np.array([scenes.COLORS[name] for name in names], float)
    return names[int(np.argmax(values @ mean / np.linalg.norm(values, axis=1)))]


def score_video(requirement: dict[str, Any], frames: list[Detection | None]) -> tuple[str, bool]:
    """T2V-CompBench's answer (A to D) for a coloured digit, and whether it moved as asked.

    It moved as asked if its centre's displacement from first to last frame points that way within 45 degrees and is at
    least half of what the training videos show.
    """
    wanted = requirement["include"][0]
    present = [f is not None and scenes.NAMES[f.digit] == wanted["class"] for f in frames]
    holds = [p and f is not None and f.color == wanted["color"] for p, f in zip(present, frames, strict=True)]
    first, last = frames[0], frames[-1]
    if first is None or last is None:
        return answer(holds, present), False
    shift = np.array(last.centre) - np.array(first.centre)
    along = float(shift @ np.array(scenes.DIRECTIONS[requirement["moving"]]))
    across = float(np.sqrt(max(float(shift @ shift) - along**2, 0.0)))
    return answer(holds, present), along > across and along >= scenes.SPEED * (scenes.FRAMES - 1) / 2


def detector_accuracy(detector: DigitDetector, count: int = 300, seed: int = 0) -> dict[str, float]:
    """Scores of *real* scenes by the detector: the ceiling of every score it gives.

    Scenes hold handwriting that neither the detector nor a model was trained on. Keys: `image` (share of correct
    scenes), `video` (consistency score), `motion` (share of correct motions).
    """
    generator = np.random.default_rng([seed, 2])
    images, consistent, moved = [], [], []
    for i in range(count):
        scene = scenes.draw_scene(scenes.TASKS[i % len(scenes.TASKS)], generator)
        detected = detector(scenes.render(scene, generator, "held_out"), scene.task)
        images.append(is_correct(digit_requirement(scene), detected))
        video = scenes.draw_video_scene(generator)
        frames = [detector.read_frame(frame) for frame in scenes.render_video(video, generator, "held_out")]
        letter, right = score_video({**digit_requirement(video), "moving": video.moving}, frames)
        consistent.append(points(letter))
        moved.append(right)
    return {"image": float(np.mean(images)), "video": consistency(consistent), "motion": float(np.mean(moved))}
