"""From an image file to a square of pixels, or to one line that says what is wrong with it.

What a file may cost is decided before it is read, and before it is decoded, so that memory is bounded whatever lies in
a folder.
"""

import errno
import io
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

MAX_BYTES = 2**29
MAX_PIXELS = 89_478_485  # where Pillow begins to warn of a decompression bomb; 0.36 GB decoded
MAX_ASPECT = 100  # of the sides: the short one is scaled to the size asked for, and the long one with it


@dataclass(frozen=True)
class Loaded:
    """What came of a list of keys.

    images: (n, size, size, 3), of the readable keys in the order asked for.
    positions: where in the list each of them stands, (n,).
    problems: (key, reason) of each key that could not be read.
    """

    images: UInt8[np.ndarray, "n size size 3"]
    positions: np.ndarray
    problems: list[tuple[str, str]]


def center_crop(image: Image.Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The centre crop of Dhariwal and Nichol (ADM), used by every ImageNet 256 paper (docs/paper.md#imagenet).

    Halve with a box filter while the short side is at least twice `size`, scale the short side to `size` with
    a bicubic filter, cut the middle.
    """
    image = image.convert("RGB")
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


def visible(path: Path) -> list[Path]:
    """What is in a folder but for hidden names, which belong to tools and the operating system."""
    return sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))


def files_below(folder: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """All that a folder and the folders below it hold, hidden names apart, sorted by path; links are followed.

    By the rule of class folders: whether a file is an image is not for its name to say. A link to a folder `above`
    stands in the list as a file.
    """
    above = (*above, folder.resolve())
    files = []
    for entry in visible(folder):
        files += files_below(entry, above) if entry.is_dir() and entry.resolve() not in above else [entry]
    return files


def read_regular(path: Path) -> bytes:
    """The content of a regular file, or of the one that a link leads to.

    Raises OSError, its `strerror` a line, for anything else (to open a pipe is to wait for its writer) and for a file
    larger than MAX_BYTES.
    """
    _check_regular(path.stat())
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        _check_regular(os.fstat(file.fileno()))  # another may have taken its place
        return file.read(MAX_BYTES)


def _check_regular(state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if state.st_size > MAX_BYTES:
        raise OSError(errno.EFBIG, f"{state.st_size:,} bytes, expected at most {MAX_BYTES:,}")


def decode(content: bytes, size: int) -> np.ndarray | str:
    """The cropped image, or in one line why the file is not one (its suffix is not believed)."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                return f"{width}x{height} pixels, expected at most {MAX_PIXELS:,} in all"
            if max(width, height) > MAX_ASPECT * min(width, height):
                return f"{width}x{height} pixels, expected sides that differ by a factor of at most {MAX_ASPECT}"
            return center_crop(image, size)
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error ... on bad data
        return " ".join(str(error).split()).replace("cannot identify image file", "not an image:") or repr(error)


def collect(keys: Sequence[str], results: Sequence[np.ndarray | str], size: int) -> Loaded:
    """Sort what `decode` gave for each key into images and problems."""
    good = [k for k, result in enumerate(results) if not isinstance(result, str)]
    problems = [(keys[k], result) for k, result in enumerate(results) if isinstance(result, str)]
    images = np.stack([np.asarray(results[k]) for k in good]) if good else np.empty((0, size, size, 3), np.uint8)
    return Loaded(images, np.array(good, np.int64), problems)
