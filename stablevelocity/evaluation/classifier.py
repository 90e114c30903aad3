"""The digit classifier: a small convolutional network whose features take Inception's place in the digits study.

Inception says little about 16 px digits, and its weights may not be at hand. The classifier is trained on the train
split, in seconds. It is on purpose another kind of network than the encoder that training aligns with (a vision
transformer): distances in the encoder's own features would favour the aligned arms. FIDs by its features compare arms
of one study with one another, and with nothing else.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write, read_json, sha256, write_json
from stablevelocity.models.train_small import train_small
from stablevelocity.models.weight_files import check_finite, reading_weights

SPATIAL_CHANNELS = 7  # as ADM takes of Inception's feature map
SMOOTHING = 0.1
BATCH = 128  # in training


class FeatureBatch(NamedTuple):
    """What every metric is computed from: `pool`, the layer before the logits (FID, precision, recall); `spatial`, the
    first 7 channels of a feature map in (row, column, channel) order (sFID); `logits` (Inception score).
    """

    pool: Float[Tensor, "batch d"]
    spatial: Float[Tensor, "batch s"]
    logits: Float[Tensor, "batch c"]


class DigitClassifier(nn.Module):
    """Two pairs of 3x3 convolutions with pooling, then 64 features, then the classes.

    Takes uint8 RGB images (batch, size, size, 3); `size` is a multiple of 4.
    """

    name = "digits"
    identity = ""  # the hash of its weights, once they are in a file

    def __init__(self, *, size: int, num_classes: int, width: int = 16) -> None:
        super().__init__()
        if size % 4:
            raise UserError(f"digit classifier: image size {size} given, expected a multiple of 4")
        self.config = {"size": size, "num_classes": num_classes, "width": width}

        def convolutions(channels: int, filters: int) -> list[nn.Module]:
            pair = nn.Conv2d(channels, filters, 3, padding=1), nn.Conv2d(filters, filters, 3, padding=1)
            return [pair[0], nn.ReLU(), pair[1], nn.ReLU(), nn.MaxPool2d(2)]

        self.stem = nn.Sequential(*convolutions(3, width), *convolutions(width, 2 * width))
        self.features = nn.Linear(2 * width * (size // 4) ** 2, 64)
        self.classes = nn.Linear(64, num_classes)

    @torch.no_grad()
    def forward(self, images: UInt8[Tensor, "batch size size 3"]) -> FeatureBatch:
        """Features on the CPU."""
        size = self.config["size"]
        if images.shape[1:] != (size, size, 3):
            given = f"images of {images.shape[2]}x{images.shape[1]} px given"
            raise UserError(f"digit classifier: {given}, it was trained on {size}x{size}")
        features = self.run(_to_floats(images.to(self.classes.weight.device)))
        return FeatureBatch(*(column.cpu() for column in features))

    def run(self, x: Float[Tensor, "batch 3 size size"], dropout: float = 0.0) -> FeatureBatch:
        grid = self.stem(x)
        pool = F.relu(self.features(F.dropout(grid.flatten(1), dropout)))
        spatial = grid[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        return FeatureBatch(pool, spatial, self.classes(F.dropout(pool, dropout)))


def train_classifier(
    images: UInt8[np.ndarray, "n size size 3"], labels: Int[np.ndarray, " n"], *, seed: int, steps: int = 400
) -> DigitClassifier:
    """Train a classifier: AdamW on smoothed cross-entropy, one-cycle rate, shifts by up to one pixel as augmentation.

    Without smoothing the features of sure images grow without bound; FID then lives in their tails, and its spread
    between sets of one generator doubles. Deterministic for a seed and a number of CPU threads.
    """
    if len(images) != len(labels) or not len(images):
        raise UserError(f"digit classifier: {len(images)} images and {len(labels)} labels given, expected as many")
    torch.manual_seed(seed)
    classifier = DigitClassifier(size=images.shape[1], num_classes=int(labels.max()) + 1)
    pixels = _to_floats(torch.from_numpy(np.ascontiguousarray(images)))
    targets = torch.from_numpy(np.asarray(labels, dtype=np.int64))
    optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        rows = torch.randint(len(pixels), (BATCH,), generator=generator)
        row, column = torch.randint(3, (2,), generator=generator).tolist()
        padded = F.pad(pixels[rows], (1, 1, 1, 1), mode="replicate")
        x = padded[:, :, row : row + pixels.shape[2], column : column + pixels.shape[3]]
        return F.cross_entropy(classifier.run(x, dropout=0.2).logits, targets[rows], label_smoothing=SMOOTHING)

    train_small("digit classifier", classifier, loss, optimizer, schedule, steps=steps, clip=None)
    return classifier.requires_grad_(False)


def classifier_accuracy(
    classifier: DigitClassifier, images: UInt8[np.ndarray, "n size size 3"], labels: Int[np.ndarray, " n"]
) -> float:
    """Share of images whose label the classifier predicts."""
    batches = (torch.from_numpy(np.array(images[start : start + 256])) for start in range(0, len(images), 256))
    predicted = torch.cat([classifier(batch).logits.argmax(dim=1) for batch in batches])
    return float((predicted.numpy() == np.asarray(labels)).mean())


def save_classifier(classifier: DigitClassifier, folder: Path, **facts: float | int | str) -> None:
    """Write `model.safetensors`, then `config.json` with its sizes and `facts` (accuracy, seed)."""
    with atomic_write(folder / "model.safetensors") as temporary:
        save_file(classifier.state_dict(), temporary)
    write_json(folder / "config.json", {**classifier.config, "facts": facts})


def load_classifier(folder: Path, device: str = "cpu") -> DigitClassifier:
    """Read a classifier. Raises UserError when the folder holds none."""
    with reading_weights(folder, "config.json and model.safetensors of a digit classifier, as `judge` trains it"):
        config = read_json(folder / "config.json")
        config.pop("facts", None)
        classifier = DigitClassifier(**config)
        classifier.load_state_dict(load_file(folder / "model.safetensors"))
    check_finite(classifier.state_dict(), folder)
    classifier.identity = f"digits:sha256:{sha256(folder / 'model.safetensors')}"
    return classifier.eval().requires_grad_(False).to(device)


def _to_floats(images: UInt8[Tensor, "n size size 3"]) -> Float[Tensor, "n 3 size size"]:
    return images.permute(0, 3, 1, 2).float() / 128 - 1
