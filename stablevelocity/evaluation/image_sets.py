"""Images to be scored, from wherever they lie: shards, an `.npz` in ADM's layout, or a folder of files.

`open_images(path)` gives an `ImageSet`; its `batches(size, start)` are consecutive images in file order, so that memory
does not grow with their number, and its `identity` changes when they do. Nothing is resized or cropped: arrays must be
8-bit RGB, and files come out of training's decoder.
"""

import hashlib
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from stablevelocity.data.decoding import FORMATS, check_regular, decode, files_below, read_regular, reason_of, shown
from stablevelocity.data.shards import ShardSet
from stablevelocity.errors import UserError
from stablevelocity.progress import log


class ImageShards:
    """The `images` of a set of shards."""

    def __init__(self, manifest: Path):
        self._shards = ShardSet(manifest, "images")
        spec = self._shards.manifest["arrays"]["images"]
        _check_array(manifest, "images", spec["dtype"], (len(self), *spec["shape"]))
        checksums = "".join(entry["sha256"] for entry in self._shards.manifest["shards"])
        self.identity = hashlib.sha256(checksums.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._shards)

    def batches(self, size: int, start: int = 0) -> Iterator[UInt8[np.ndarray, "batch height width 3"]]:
        for first in range(start, len(self), size):
            yield self._shards.rows("images", np.arange(first, min(first + size, len(self))))


class NpzImages:
    """`arr_0` of an `.npz`, streamed out of the archive (a batch of 50,000 at 256 px is 9.8 GB)."""

    def __init__(self, path: Path):
        self.path = path
        with self._opened() as file:
            self.shape, fortran, dtype = _npy_header(file)
        _check_array(path, "arr_0", str(dtype), self.shape)
        if fortran:
            raise UserError(f"{path}: arr_0 is in Fortran order, expected C order")
        self.identity = _identity([path], path.parent)

    def __len__(self) -> int:
        return self.shape[0]

    def batches(self, size: int, start: int = 0) -> Iterator[UInt8[np.ndarray, "batch height width 3"]]:
        pixels = int(np.prod(self.shape[1:]))
        with self._opened() as file:
            _npy_header(file)
            file.seek(start * pixels, 1)
            for first in range(start, len(self), size):
                count = min(size, len(self) - first)
                data = file.read(count * pixels)
                if len(data) < count * pixels:
                    raise UserError(f"{self.path}: arr_0 ends after {first} of {len(self)} images")
                yield np.frombuffer(data, np.uint8).reshape(count, *self.shape[1:])

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open("arr_0.npy") as file:
                yield file
        except KeyError:
            raise UserError(f"{self.path}: holds no array `arr_0` (the images in ADM's layout)") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            raise UserError(f"{self.path}: not a readable .npz ({' '.join(str(error).split())})") from None


class ImageFolder:
    """Image files of a folder and the folders below it, by the rule and with the decoder of training's class folders;
    what is no image is left out and said.
    """

    def __init__(self, folder: Path):
        listing = files_below(folder)
        reasons = {file: _no_image(file) for file in listing.files} | dict.fromkeys(listing.hidden, "hidden name")
        self.files = [file for file, reason in reasons.items() if reason is None]
        others = [f"{shown(file.relative_to(folder))} ({reason})" for file, reason in reasons.items() if reason]
        left_out = f"{len(others)} other file(s): {', '.join(others[:4])}{' ...' if len(others) > 4 else ''}"
        if not self.files:
            raise UserError(f"{folder}: no images and no manifest.json" + (f", {left_out}" if others else ""))
        if others:
            log.warning(f"{folder}: {len(self.files)} images; left out {left_out}")
        self._shape = _read_file(self.files[0]).shape
        self.identity = _identity(self.files, folder)

    def __len__(self) -> int:
        return len(self.files)

    def batches(self, size: int, start: int = 0) -> Iterator[UInt8[np.ndarray, "batch height width 3"]]:
        for first in range(start, len(self), size):
            yield np.stack([self._read(file) for file in self.files[first : first + size]])

    def _read(self, file: Path) -> UInt8[np.ndarray, "height width 3"]:
        image = _read_file(file)
        if image.shape != self._shape:
            raise UserError(
                f"{shown(file)}: {image.shape[1]}x{image.shape[0]} px, but {shown(self.files[0].name)} has "
                f"{self._shape[1]}x{self._shape[0]}; resize all images to one size first"
            )
        return image


ImageSet = ImageShards | NpzImages | ImageFolder


def open_images(path: Path | str) -> ImageSet:
    """Open a manifest of shards (or its folder), an ADM `.npz`, or a folder of image files.

    Raises UserError, one line, for an absent path, an empty folder, fewer than two images, or an array that is not
    uint8 (n, height, width, 3). Files in a folder are checked as they are read.
    """
    path = Path(path)
    if (path / "manifest.json").exists():
        path = path / "manifest.json"
    kinds = {".json": ImageShards, ".npz": NpzImages}
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; expected a manifest of shards, an .npz or a folder")
    if not path.is_dir() and path.suffix not in kinds:
        raise UserError(f"{path}: expected a manifest of shards (.json), an .npz or a folder of images")
    images = ImageFolder(path) if path.is_dir() else kinds[path.suffix](path)
    if len(images) < 2:
        raise UserError(f"{path}: holds {len(images)} image(s); metrics need at least 2")
    return images


def _no_image(file: Path) -> str | None:
    """Why a file is no image, from its first bytes; None for an image, which may still be damaged."""
    try:
        check_regular(file.stat())
        Image.open(file, formats=FORMATS).close()
    except (OSError, ValueError) as error:
        return reason_of(error)
    except (Image.DecompressionBombError, SyntaxError):  # an image: refused when it is read
        pass
    return None


def _read_file(file: Path) -> UInt8[np.ndarray, "height width 3"]:
    try:
        image = decode(read_regular(file), None)
    except OSError as error:
        image = reason_of(error)
    if isinstance(image, str):
        raise UserError(f"{shown(file)}: cannot be used as an image ({image})")
    return image


def _identity(files: list[Path], folder: Path) -> str:
    """Of files as they lie there: their names, sizes and times."""
    listing = [(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(listing).encode()).hexdigest()


def _check_array(path: Path, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    if dtype != "uint8":
        raise UserError(f"{path}: `{name}` holds {dtype}, expected uint8 in 0..255")
    if len(shape) != 4 or shape[-1] != 3 or min(shape[1:]) < 1 or not 0 <= math.prod(shape) < 2**63:
        raise UserError(f"{path}: `{name}` has shape {shape}, expected (n, height, width, 3)")


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether in Fortran order, type); the data follow."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"npy format {version}")
