"""The judge of the digits study: a small convolutional classifier whose features take Inception's place.

Inception says little about 16 px digits, and its weights may not be at hand. The judge is trained on the
train split, in seconds. It is on purpose another kind of network than the encoder that training aligns with
(a vision transformer): distances in the encoder's own features would favour the aligned arms. FIDs by the
judge compare arms of one study with one another, and with nothing else.
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
from stablevelocity.files import atomic_write, read_json, write_json
from stablevelocity.progress import Progress

SPATIAL_CHANNELS = 7
SMOOTHING = 0.1


class JudgeOutput(NamedTuple):
    pool: Float[Tensor, "batch 64"]
    """Penultimate layer after its ReLU, in place of Inception's pool3."""
    spatial: Float[Tensor, "batch spatial"]
    """First 7 channels of the last feature map, in the manner of ADM's spatial features: (row, column, channel)."""
    logits: Float[Tensor, "batch classes"]


class Judge(nn.Module):
    """Two pairs of 3x3 convolutions with pooling, then 64 features, then the classes.

    Takes uint8 RGB images (batch, size, size, 3); `size` is a multiple of 4.
    """

    def __init__(self, *, size: int, num_classes: int, width: int = 16) -> None:
        super().__init__()
        if size % 4:
            raise UserError(f"judge: image size {size} given, expected a multiple of 4")
        self.config = {"size": size, "num_classes": num_classes, "width": width}
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.features = nn.Linear(2 * width * (size // 4) ** 2, 64)
        self.classes = nn.Linear(64, num_classes)

    def forward(self, images: UInt8[Tensor, "batch size size 3"]) -> JudgeOutput:
        size = self.config["size"]
        if images.shape[1:] != (size, size, 3):
            raise UserError(
                f"judge: images of {images.shape[2]}x{images.shape[1]} px given, it was trained on {size}x{size}"
            )
        return self._run(images.permute(0, 3, 1, 2).float() / 128 - 1, dropout=0.0)

    def _run(self, x: Float[Tensor, "batch 3 size size"], dropout: float) -> JudgeOutput:
        grid = self.stem(x)
        pool = F.relu(self.features(F.dropout(grid.flatten(1), dropout)))
        spatial = grid[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        return JudgeOutput(pool, spatial, self.classes(F.dropout(pool, dropout)))


def train_judge(
    images: UInt8[np.ndarray, "n size size 3"],
    labels: Int[np.ndarray, " n"],
    *,
    seed: int,
    steps: int = 400,
    batch: int = 128,
) -> Judge:
    """Train a judge: AdamW on smoothed cross-entropy, one-cycle rate, shifts by up to one pixel as augmentation.

    Without smoothing the features of sure images grow without bound; FID then lives in their tails, and its
    spread between sets of one generator doubles. Deterministic for a seed and a number of CPU threads.
    """
    if len(images) != len(labels) or not len(images):
        raise UserError(f"judge: {len(images)} images and {len(labels)} labels given, expected as many")
    torch.manual_seed(seed)
    judge = Judge(size=images.shape[1], num_classes=int(labels.max()) + 1)
    data = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 128 - 1
    targets = torch.from_numpy(np.asarray(labels, dtype=np.int64))
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    progress = Progress("judge", steps, "steps")
    for _ in range(steps):
        rows = torch.randint(len(data), (batch,), generator=generator)
        row, column = torch.randint(3, (2,), generator=generator).tolist()
        padded = F.pad(data[rows], (1, 1, 1, 1), mode="replicate")
        x = padded[:, :, row : row + data.shape[2], column : column + data.shape[3]]
        logits = judge._run(x, dropout=0.2).logits
        loss = F.cross_entropy(logits, targets[rows], label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.update(loss=loss.item())
    return judge.eval().requires_grad_(False)


@torch.no_grad()
def judge_accuracy(judge: Judge, images: UInt8[np.ndarray, "n size size 3"], labels: Int[np.ndarray, " n"]) -> float:
    """Share of images whose label the judge finds."""
    found = [
        judge(torch.from_numpy(np.array(images[start : start + 256]))).logits.argmax(dim=1)
        for start in range(0, len(images), 256)
    ]
    return float((torch.cat(found).numpy() == np.asarray(labels)).mean())


def save_judge(judge: Judge, folder: Path | str, **facts: float | int | str) -> None:
    """Write `model.safetensors`, then `config.json` with its sizes and `facts` (accuracy, seed)."""
    folder = Path(folder)
    with atomic_write(folder / "model.safetensors") as temporary:
        save_file(judge.state_dict(), temporary)
    write_json(folder / "config.json", {**judge.config, "facts": facts})


def load_judge(folder: Path | str) -> Judge:
    """Read a judge. Raises UserError when the folder holds none."""
    folder = Path(folder)
    try:
        config = read_json(folder / "config.json")
        state = load_file(folder / "model.safetensors")
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no judge there (config.json and model.safetensors); train one with `stablevelocity train-judge`"
        ) from None
    config.pop("facts", None)
    judge = Judge(**config)
    judge.load_state_dict(state)
    return judge.eval().requires_grad_(False)
