"""Generated shards as other tools want them: an `.npz` in ADM's layout, a folder of PNG files."""

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from stablevelocity.data.shards import ShardSet
from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write

CHUNK = 1024


def write_npz(shards: ShardSet, path: Path | str) -> None:
    """`arr_0`: all images, uint8 (n, height, width, 3), streamed, so memory does not grow with n."""
    shape = (len(shards), *shards.manifest["arrays"]["images"]["shape"])
    with (
        atomic_write(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as file,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(shards), CHUNK):
            file.write(shards.rows("images", np.arange(start, min(start + CHUNK, len(shards)))).tobytes())


def write_png_folder(shards: ShardSet, folder: Path | str) -> None:
    """000000.png, 000001.png, ... in the order of the images.

    Raises UserError when the folder holds anything: files of another set would count as this one's.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: the folder is not empty; give an empty or a new one for the PNG files")
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(len(shards)):
        Image.fromarray(shards.rows("images", np.array([index]))[0]).save(folder / f"{index:06d}.png")
