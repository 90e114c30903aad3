"""Image data sets behind one interface: digits, CIFAR-10, class folders, the official ImageNet tars.

A source lists (key, label) of its images in a fixed order (`index`) and reads any of them (`load`), so that shards can
be cut by any number of jobs; `class_names` are in the order of the labels. What cannot be read is returned by name with
its reason, never skipped in silence.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stablevelocity.data.class_folders import ClassFolders, ImageNetTar, Split
from stablevelocity.data.decoding import Loaded, center_crop, collect
from stablevelocity.errors import UserError


def open_source(
    dataset: str, path: Path | str | None, *, size: int, held_out: float = 0.2, seed: int = 0
) -> "ImageSource":
    """The data set named in a study: "digits", "cifar10" (local copy in `path`), or "folder".

    A folder holds `train/<class>/<image>` and `val/<class>/<image>`, or the official
    `ILSVRC2012_img_train.tar`. `size` is the side in pixels of what `load` gives. `held_out` and `seed` say
    which digits are kept out of training; the other data sets have their own split.

    Raises UserError naming what is missing.
    """
    if dataset == "digits":
        return Digits(size=size, held_out=held_out, seed=seed)
    if path is None or not Path(path).is_dir():
        raise UserError(f"images: {dataset} needs the folder of the data set, given {path}")
    if dataset == "cifar10":
        return Cifar10(Path(path), size=size)
    if dataset == "folder":
        if (Path(path) / ImageNetTar.FILE).is_file():
            return ImageNetTar(Path(path), size=size)
        return ClassFolders(Path(path), size=size)
    raise UserError(f"images: data set {dataset!r} given, expected digits, cifar10 or folder")


class Digits:
    """The 1,797 handwritten digits of scikit-learn, 8x8 grey values 0..16, scaled up to RGB."""

    def __init__(self, *, size: int, held_out: float, seed: int) -> None:
        from sklearn.datasets import load_digits

        data: Any = load_digits()
        self.class_names = [str(name) for name in data.target_names]
        self._images = data.images.astype(np.float32) * (255 / 16)
        self._labels = data.target
        self._size = size
        order = np.random.default_rng(seed).permutation(len(self._labels))
        cut = round(held_out * len(order))
        self._members = {"heldout": np.sort(order[:cut]), "train": np.sort(order[cut:])}

    def index(self, split: Split) -> list[tuple[str, int]]:
        return [(f"{k:04d}", int(self._labels[k])) for k in self._members[split]]

    def load(self, keys: Sequence[str]) -> Loaded:
        results = []
        for key in keys:
            grey = Image.fromarray(self._images[int(key)])  # float, so that nothing is rounded twice
            grey = np.asarray(grey.resize((self._size, self._size), Image.Resampling.BICUBIC))
            results.append(np.repeat(grey.round().clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2))
        return collect(keys, results, self._size)


class Cifar10:
    """CIFAR-10 from a local copy: the binary version, or the Python version as torchvision keeps it.

    Torchvision checks the MD5 of each file of the Python version before it opens it.
    """

    def __init__(self, path: Path, *, size: int) -> None:
        binary, python = path / "cifar-10-batches-bin", path / "cifar-10-batches-py"
        self._size = size
        if binary.is_dir():
            self._arrays = {split: _cifar10_binary(binary, split) for split in ("train", "heldout")}
            names = binary / "batches.meta.txt"
            self.class_names = names.read_text().split() if names.is_file() else []
            if len(self.class_names) != 10:
                raise UserError(f"images: {names} has {len(self.class_names)} names of classes, expected 10")
        elif python.is_dir():
            from torchvision.datasets import CIFAR10

            try:
                parts = {split: CIFAR10(str(path), train=split == "train") for split in ("train", "heldout")}
            except RuntimeError:
                raise UserError(f"images: {python} is not the original CIFAR-10 (a file differs by its MD5)") from None
            self._arrays = {split: (part.data, np.array(part.targets)) for split, part in parts.items()}
            self.class_names = list(parts["train"].classes)
        else:
            raise UserError(
                f"images: no CIFAR-10 in {path}; expected the folder cifar-10-batches-bin or cifar-10-batches-py "
                "there (unpack the official archive, or run `stablevelocity download cifar10`)"
            )

    def index(self, split: Split) -> list[tuple[str, int]]:
        return [(f"{split}/{k:05d}", int(label)) for k, label in enumerate(self._arrays[split][1])]

    def load(self, keys: Sequence[str]) -> Loaded:
        results = []
        for key in keys:
            split, _, number = key.partition("/")
            image = self._arrays[split][0][int(number)]
            same = image.shape[0] == self._size
            results.append(image if same else center_crop(Image.fromarray(image), self._size))
        return collect(keys, results, self._size)


def _cifar10_binary(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(images, labels) of the binary version: rows of 1 label byte and 3 x 32 x 32 pixel bytes."""
    names = [f"data_batch_{n}.bin" for n in range(1, 6)] if split == "train" else ["test_batch.bin"]
    parts = []
    for name in names:
        try:
            part = np.fromfile(folder / name, np.uint8)
        except OSError as error:
            raise UserError(f"images: {folder / name} cannot be read ({error.strerror})") from None
        if part.size == 0 or part.size % 3073 or part[::3073].max() > 9:
            raise UserError(f"images: {folder / name} is not a batch of CIFAR-10 (rows of 3,073 bytes)")
        parts.append(part.reshape(-1, 3073))
    rows = np.concatenate(parts)
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0].astype(np.int64)


ImageSource = Digits | Cifar10 | ClassFolders | ImageNetTar


def check_count(count: int, problems: int, expected: int | None, where: str) -> None:
    """Refuse a data set that is not whole: `count` listed images, `problems` of them unreadable.

    `expected` is what the study asks for (1,281,167 for ImageNet), or None for no check.
    """
    readable = count - problems
    if expected is not None and readable != expected:
        raise UserError(
            f"images: {where} has {readable:,} readable images ({problems:,} unreadable), expected {expected:,}"
        )
