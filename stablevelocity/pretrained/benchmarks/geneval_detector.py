"""GenEval's own way of seeing: Mask2Former finds objects, CLIP names their colour.

As in Ghosh et al. 2023: instances above 0.3 confidence (0.9 when counting), at most 16 per class; the colour is CLIP's
zero-shot choice among ten on the object cut out on grey. The official scorer runs an mmdet checkpoint of the same
network (Mask2Former, Swin-S, COCO instances); this one runs the transformers port of it, so scores can differ by a
little: say which one was used.
"""

import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from stablevelocity.errors import UserError
from stablevelocity.pretrained.benchmarks.geneval import DetectedObject

DETECTOR = "facebook/mask2former-swin-small-coco-instance"
CLIP = "openai/clip-vit-large-patch14"
#: Commits on the hub. None: not known here; the hub's cache then decides, and a report should say what lies there.
REVISIONS: dict[str, str | None] = {DETECTOR: None, CLIP: "32bd64288804d66eefd0ccbe215aa642df71cc41"}

THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9
MOST_OBJECTS = 16
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
BACKGROUND = (0x99, 0x99, 0x99)

#: COCO's 80 classes in order of their index, by the names that GenEval's prompts use.
_NAMES = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, "
    "laptop, computer mouse, tv remote, computer keyboard, cell phone, microwave, oven, toaster, sink, "
    "refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush "
)
NAMES = tuple(name.strip() for name in _NAMES.split(","))


class ColorClassifier:
    """CLIP's zero-shot choice of a colour for an object of a known class."""

    def __init__(self, model: Any, processor: Any):
        self._model, self._processor = model.eval(), processor
        self._directions: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def __call__(self, image: np.ndarray, mask: np.ndarray, box: tuple[float, float, float, float], name: str) -> str:
        """`image` (H, W, 3) uint8, `mask` (H, W) bool of the object, `box` its extent."""
        cut = np.where(mask[:, :, None], image, np.array(BACKGROUND, np.uint8))
        crop = Image.fromarray(cut).crop(tuple(int(side) for side in box))  # type: ignore[arg-type]
        inputs = self._processor(images=crop, return_tensors="pt").to(self._model.device)
        features = _features(self._model.get_image_features(**inputs))
        return COLORS[int((features @ self._directions_of(name).T).argmax())]

    def _directions_of(self, name: str) -> torch.Tensor:
        """One per colour: the mean over the templates of CLIP's text features."""
        if name not in self._directions:
            rows = []
            for color in COLORS:
                texts = [template.format(color=color, name=name) for template in TEMPLATES]
                inputs = self._processor(text=texts, return_tensors="pt", padding=True).to(self._model.device)
                rows.append(_normalised(_features(self._model.get_text_features(**inputs)).mean(0)))
            self._directions[name] = torch.stack(rows)
        return self._directions[name]


@dataclass
class Mask2FormerDetector:
    """A GenEval `Detector`: instances with their boxes, confidences and, when asked, colours."""

    model: Any
    processor: Any
    color_of: ColorClassifier

    @torch.no_grad()
    def __call__(self, image: np.ndarray, tag: str) -> list[DetectedObject]:
        inputs = self.processor(images=Image.fromarray(image), return_tensors="pt").to(self.model.device)
        threshold = COUNTING_THRESHOLD if tag == "counting" else THRESHOLD
        result = self.processor.post_process_instance_segmentation(
            self.model(**inputs), threshold=threshold, target_sizes=[image.shape[:2]], return_binary_maps=True
        )[0]
        if not result["segments_info"]:
            # The map that comes with none is not one of instances.
            return []
        objects: list[DetectedObject] = []
        for instance, mask in zip(result["segments_info"], result["segmentation"], strict=True):
            inside = mask.cpu().numpy() > 0
            if not inside.any():
                continue
            rows, columns = np.nonzero(inside)
            box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
            name = NAMES[instance["label_id"]]
            color = functools.partial(self.color_of, image, inside, box, name)
            objects.append(DetectedObject(name, box, float(instance["score"]), color))
        objects.sort(key=lambda detected: -detected.confidence)
        seen: Counter[str] = Counter()
        kept = []
        for detected in objects:
            seen[detected.name] += 1
            if seen[detected.name] <= MOST_OBJECTS:
                kept.append(detected)
        return kept


def load_detector(detector: Path | str = DETECTOR, clip: Path | str = CLIP, device: str = "cpu") -> Mask2FormerDetector:
    """Both networks from this machine (a folder or the hub's cache); nothing is downloaded.

    Raises UserError, naming the missing one and the command that downloads it.
    """
    from transformers import AutoImageProcessor, AutoProcessor, CLIPModel, Mask2FormerForUniversalSegmentation

    def load(kind: Any, source: Path | str) -> Any:
        revision = REVISIONS.get(str(source))
        try:
            return kind.from_pretrained(source, local_files_only=True, revision=revision or "main")
        except (OSError, ValueError):
            raise UserError(
                f"{source} is not on this machine; to download it: stablevelocity download {source} "
                f"--revision {revision or '<commit>'}"
            ) from None

    # The cheap part of each comes first.
    image_processor, processor = load(AutoImageProcessor, detector), load(AutoProcessor, clip)
    model = load(Mask2FormerForUniversalSegmentation, detector).to(device).eval()
    if model.config.num_labels != len(NAMES):
        raise UserError(f"{detector}: has {model.config.num_labels} classes, expected COCO's {len(NAMES)}")
    return Mask2FormerDetector(model, image_processor, ColorClassifier(load(CLIPModel, clip).to(device), processor))


def _features(output: Any) -> torch.Tensor:
    """Unit features; newer versions of transformers wrap them."""
    return _normalised(output if isinstance(output, torch.Tensor) else output.pooler_output)


def _normalised(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)
