"""From an image file to a square of pixels, or to one line that says what is wrong with it.

What a file may cost is decided before it is read, and before it is decoded, so that memory is bounded whatever lies in
a folder.
"""

import errno
import io
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from stablevelocity.errors import UserError, printable

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_BYTES = 2**29
MAX_PIXELS = 89_478_485  # where Pillow begins to warn of a decompression bomb; 0.36 GB decoded
MAX_DEPTH = 100  # of folders inside each other, from the root of the disk
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
    """The centre crop of Dhariwal and Nichol (ADM) of an RGB image, used by every ImageNet 256 paper
    (docs/paper.md#imagenet).

    Halve with a box filter while the short side is at least twice `size`, scale the short side to `size` with
    a bicubic filter, cut the middle.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


class Listing(NamedTuple):
    """What an image folder holds: `files`, and apart from them the `hidden` names of tools and operating systems."""

    files: list[Path]
    hidden: list[Path]


def files_below(folder: Path, above: tuple[Path, ...] = ()) -> Listing:
    """All in a folder and in the folders below it, sorted by path; links are followed.

    The one rule for training and for scoring. Whether a file is an image is not for its name to say. A link to a folder
    above stands in the list as a file.
    """
    if len(above) > MAX_DEPTH:
        raise UserError(f"{shown(folder)[:60]}...: more than {MAX_DEPTH} folders inside each other")
    above = (*above, folder.resolve(), *(() if above else folder.resolve().parents))
    listing = Listing([], [])
    with os.scandir(folder) as entries:  # knows what is a folder without asking the disk for each file
        kinds = sorted((entry.name, _is_folder(entry)) for entry in entries)
    for name, is_folder in kinds:
        entry = folder / name
        if name.startswith("."):
            listing.hidden.append(entry)
        elif is_folder and entry.resolve() not in above:
            below = files_below(entry, above)
            listing.files.extend(below.files)
            listing.hidden.extend(below.hidden)
        else:
            listing.files.append(entry)
    return listing


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def shown(name: Path | str) -> str:
    """A name as it may stand in a line: file names can hold line breaks, and bytes that are no text."""
    return printable(str(name))


def read_regular(path: Path) -> bytes:
    """The content of a regular file, or of the one that a link leads to.

    Raises OSError, its `strerror` a line, for anything else (to open a pipe is to wait for its writer) and for a file
    larger than MAX_BYTES.
    """
    check_regular(path.stat())
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        state = os.fstat(file.fileno())
        check_regular(state)  # another may have taken its place
        return file.read(state.st_size)  # room is made for as much as is asked for, by each thread that reads


def check_regular(state: os.stat_result) -> None:
    """Raises OSError as `read_regular` does."""
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if state.st_size > MAX_BYTES:
        raise OSError(errno.EFBIG, f"{state.st_size:,} bytes, expected at most {MAX_BYTES:,}")


def decode(content: bytes, size: int | None) -> np.ndarray | str:
    """The pixels (height, width, 3) of a file, cropped to `size` unless None; or in one line why it is not used.

    Its suffix is not believed. See `to_rgb` for what becomes of grey and transparent pictures.
    """
    try:
        with open_picture(io.BytesIO(content)) as image:
            picture = to_rgb(image)
            return np.asarray(picture) if size is None else center_crop(picture, size)
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error ... on bad data
        return reason_of(error)


def reason_of(error: Exception) -> str:
    """Why a file cannot be used, in one line that is the same at each try."""
    if isinstance(error, UnidentifiedImageError):
        return f"not an image ({', '.join(FORMATS)})"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = re.sub(r" ?<[^<>]* at 0x[0-9a-f]+>", "", text)  # an object's address differs at each try
    return shown(" ".join(text.split())[:200]) or type(error).__name__


def open_picture(file: Any) -> Image.Image:
    """Open an image and judge it by its header, before its pixels are read.

    Raises ValueError, in one line, for one whose pixels would not come out whole or would not fit into memory.
    """
    image = Image.open(file, formats=FORMATS)
    width, height = image.size
    raw = str(image.tile[0].args) if image.tile else ""  # how Pillow will unpack the file's values
    grey = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    negative = image.format == "TIFF" and cast(TiffImageFile, image).tag_v2.get(262) == 0
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels, expected at most {MAX_PIXELS:,} in all")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(f"{width}x{height} pixels, expected sides that differ by a factor of at most {MAX_ASPECT}")
    if image.format != "MPO" and getattr(image, "is_animated", False):  # MPO: a camera's JPEG with its preview
        raise ValueError("several pictures in one file, expected one")
    if ";12" in raw or (grey and negative):
        raise ValueError("12-bit or inverted 16-bit grey, which is read unscaled; convert it to 8 bits")
    if ";16" in raw and not grey:
        raise ValueError("16 bits a channel in colour or with a sign, of which 8 would be read; convert it to 8 bits")
    if image.mode in ("I", "F") and not grey:
        raise ValueError("32-bit or floating-point values, whose range the file does not say; convert it to 8 bits")
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB, exact to rounding: 16-bit grey is divided by 257, what is transparent is laid on white.

    The file's colour profile and its rotation in EXIF are not applied, as ADM does not.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.uint32)
        grey = ((values + 128) // 257).astype(np.uint8)
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255
        image = Image.fromarray(grey)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, mask=image.getchannel("A"))
        return ground
    return image.convert("RGB")


def collect(keys: Sequence[str], results: Sequence[np.ndarray | str], size: int) -> Loaded:
    """Sort what `decode` gave for each key into images and problems."""
    good = [k for k, result in enumerate(results) if not isinstance(result, str)]
    problems = [(keys[k], result) for k, result in enumerate(results) if isinstance(result, str)]
    images = np.stack([np.asarray(results[k]) for k in good]) if good else np.empty((0, size, size, 3), np.uint8)
    return Loaded(images, np.array(good, np.int64), problems)
