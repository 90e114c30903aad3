"""Files in a class folder that are no picture, or not one whose pixels can be had whole.

Training leaves each out with its reason; scoring, which has the same decoder, names the same reason.
"""

import gzip
import io
import logging
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from bad_inputs.case import Case
from stablevelocity.data.class_folders import ClassFolders
from stablevelocity.errors import UserError
from stablevelocity.evaluation.image_sets import open_images

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)
OTHERS = [Image.fromarray(255 - PIXELS), Image.fromarray(PIXELS[::-1])]


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def cut(content: bytes, share: float = 0.5) -> bytes:
    return content[: int(len(content) * share)]


def flipped(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 0xFF
    return bytes(changed)


def png(width: int, height: int, depth: int, colour: int, data: bytes = b"", *chunks: bytes) -> bytes:
    """Written by hand: Pillow reads PNG files that it cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(bits: tuple[int, ...], data: bytes, *, photometric: int = 1, sample_format: int = 1, side: int = 4) -> bytes:
    """An uncompressed TIFF of `side` x `side` pixels."""
    at = 8 + 2 + 10 * 12 + 4
    values = struct.pack(f"<{len(bits)}H", *bits) if len(bits) > 2 else b""
    of_bits = (258, 3, len(bits), at if values else int.from_bytes(struct.pack(f"<{len(bits)}H", *bits), "little"))
    strip = at + len(values)
    entries = [(256, 4, 1, side), (257, 4, 1, side), of_bits, (259, 3, 1, 1), (262, 3, 1, photometric)]
    entries += [(273, 4, 1, strip), (277, 3, 1, len(bits)), (278, 4, 1, side), (279, 4, 1, len(data))]
    entries += [(339, 3, 1, sample_format)]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", 0) + values + data


def bomb_of_text() -> bytes:
    """A chunk that says little and holds 300 MB."""
    return chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 300_000_000, 9))


SIXTEEN = np.arange(16, dtype="<u2").tobytes()
DEEP = "16 bits a channel in colour"
RANGE = "32-bit or floating-point values"
NOT = r"not an image \(AVIF, BMP"
EACH = {kind: encoded(PICTURE, kind) for kind in ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")}
CONTENTS: list[tuple[str, bytes, str]] = [
    ("zero bytes", b"", NOT),
    ("one byte", b"\xff", NOT),
    ("text", b"no picture", NOT),
    ("HTML of a failed download", b"<!DOCTYPE html><html>404</html>", NOT),
    ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>", NOT),
    ("JSON", b'{"file": "x"}', NOT),
    ("a pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", NOT),
    ("gzip of a picture", gzip.compress(EACH["PNG"]), NOT),
    ("zip", b"PK\3\4" + bytes(60), NOT),
    ("PDF", b"%PDF-1.7\n", NOT),
    ("PostScript, which would run a program", encoded(PICTURE, "EPS"), NOT),
    ("JPEG 2000", encoded(PICTURE, "JPEG2000"), NOT),
    ("icon", encoded(PICTURE, "ICO", sizes=[(16, 16)]), NOT),
    ("Targa", encoded(PICTURE, "TGA"), NOT),
    ("SGI", encoded(PICTURE, "SGI"), NOT),
    ("DDS", encoded(PICTURE, "DDS"), NOT),
    ("PCX", encoded(PICTURE, "PCX"), NOT),
    ("video", b"\0\0\0\x20ftypisom" + bytes(40), NOT),
    ("an array of NumPy", b"\x93NUMPY\1\0v\0{'descr': '|u1'}", NOT),
    ("only zeros", bytes(4096), NOT),
    *((f"{kind} cut in the middle", cut(content), ".") for kind, content in EACH.items()),
    *((f"{kind} of 12 bytes", content[:12], ".") for kind, content in EACH.items()),
    ("JPEG without its end", EACH["JPEG"][:-40], "truncated"),
    ("PNG with a flipped byte", flipped(EACH["PNG"], len(EACH["PNG"]) // 2), "."),
    ("PNG with a wrong checksum", flipped(EACH["PNG"], 30), "."),
    ("PNG without pixels", EACH["PNG"][:33] + chunk(b"IEND", b""), "."),
    ("PNG of width 0", png(0, 4, 8, 2), "."),
    ("PNG of too many pixels", png(30_000, 3_000, 8, 2), "30000x3000 pixels, expected at most 89,478,485"),
    ("PNG that is a bomb", png(60_000, 60_000, 8, 2), "exceeds limit"),
    ("20000x1", encoded(Image.new("RGB", (20_000, 1)), "PNG"), "20000x1 pixels, expected sides that differ"),
    ("1x20000", encoded(Image.new("RGB", (1, 20_000)), "PNG"), "1x20000 pixels, expected sides that differ"),
    ("PNG with a bomb of text", png(4, 4, 8, 2, bytes(52), bomb_of_text()), "Decompressed data too large"),
    ("16-bit RGB PNG", png(4, 4, 16, 2, (b"\0" + bytes(24)) * 4), DEEP),
    ("16-bit RGBA PNG", png(4, 4, 16, 6, (b"\0" + bytes(32)) * 4), DEEP),
    ("16-bit grey and alpha PNG", png(4, 4, 16, 4, (b"\0" + bytes(16)) * 4), DEEP),
    ("16-bit RGB TIFF", tiff((16, 16, 16), SIXTEEN * 3, photometric=2), DEEP),
    ("16-bit RGBA TIFF", tiff((16, 16, 16, 16), SIXTEEN * 4, photometric=2), DEEP),
    ("16-bit CMYK TIFF", tiff((16, 16, 16, 16), SIXTEEN * 4, photometric=5), DEEP),
    ("16-bit TIFF with a sign", tiff((16,), SIXTEEN, sample_format=2), DEEP),
    ("16-bit TIFF, white is zero", tiff((16,), SIXTEEN, photometric=0), "inverted 16-bit grey"),
    ("12-bit TIFF", tiff((12,), bytes(24)), "12-bit"),
    ("32-bit integer TIFF", tiff((32,), SIXTEEN * 2), RANGE),
    ("32-bit integer TIFF with a sign", tiff((32,), SIXTEEN * 2, sample_format=2), RANGE),
    ("float TIFF", encoded(Image.fromarray(PIXELS[:, :, 0] / np.float32(255)), "TIFF"), RANGE),
    ("float TIFF, white is zero", tiff((32,), SIXTEEN * 2, sample_format=3, photometric=0), RANGE),
    ("half-float TIFF", tiff((16,), SIXTEEN, sample_format=3), "."),
    ("64-bit float TIFF", tiff((64,), SIXTEEN * 4, sample_format=3), "."),
    ("float PFM", b"Pf\n2 2\n-1.0\n" + bytes(16), RANGE),
    ("PGM without its values", b"P5\n4 4\n255\n", "."),
    ("PPM with a text for a size", b"P6\nwide 4\n255\n" + bytes(48), "."),
    ("animated GIF", encoded(PICTURE, "GIF", save_all=True, append_images=OTHERS), "several pictures"),
    ("animated WebP", encoded(PICTURE, "WEBP", save_all=True, append_images=OTHERS), "several pictures"),
    ("animated PNG", encoded(PICTURE, "PNG", save_all=True, append_images=OTHERS), "several pictures"),
    ("animated AVIF", encoded(PICTURE, "AVIF", save_all=True, append_images=OTHERS), "several pictures"),
    ("TIFF of three pages", encoded(PICTURE, "TIFF", save_all=True, append_images=OTHERS), "several pictures"),
]
SPECIAL: list[tuple[str, Callable[[Path], object], str]] = [
    ("named pipe", os.mkfifo, "not a regular file"),
    ("link to a device", lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    ("link to itself", lambda path: path.symlink_to(path.name), "Too many levels"),
    ("link to nothing", lambda path: path.symlink_to("nowhere"), "No such file"),
    ("link to the folder above", lambda path: path.symlink_to(".."), "not a regular file"),
    ("socket", lambda path: socket.socket(socket.AF_UNIX).bind(os.path.relpath(path)), "not a regular file"),
    ("a terabyte of nothing", lambda path: os.truncate(_touched(path), 2**40), "1,099,511,627,776 bytes"),
]
NAMES = [b"line\nbreak.png", b"\xff\xfe.png", "right\u202eto left.png".encode(), b"esc\x1b[31m.png", b"tab\t.png"]


def _touched(path: Path) -> Path:
    path.touch()
    return path


def said_of(make: Callable[[Path], object], folder: Path, name: bytes = b"odd.png") -> str:
    """What training says of an odd file beside two pictures; scoring must give the same reason."""
    place = folder / "train" / "cats"
    place.mkdir(parents=True)
    for number, other in enumerate(OTHERS):
        other.save(place / f"{number}.png")
    make(place / os.fsdecode(name))
    source = ClassFolders(folder, size=8)
    loaded = source.load([key for key, _ in source.index("train")])
    assert len(loaded.images) == len(OTHERS)
    ((_, reason),) = loaded.problems
    logger, said = logging.getLogger("stablevelocity"), io.StringIO()
    handler = logging.StreamHandler(said)
    logger.addHandler(handler)
    try:
        list(open_images(place).batches(4))
    except UserError as error:
        said.write(str(error))
    finally:
        logger.removeHandler(handler)
    line = said.getvalue().strip()
    assert reason in line, f"{reason!r} in training, {line!r} in scoring"
    return line


def file_of(content: bytes) -> Callable[[Path], str]:
    return lambda folder: said_of(lambda path: path.write_bytes(content), folder)


def special(make: Callable[[Path], object]) -> Callable[[Path], str]:
    return lambda folder: said_of(make, folder)


def named(name: bytes) -> Callable[[Path], str]:
    return lambda folder: said_of(lambda path: path.write_bytes(b"no picture"), folder, name)


CASES = [Case(name, file_of(content), expected) for name, content, expected in CONTENTS]
CASES += [Case(name, special(make), expected) for name, make, expected in SPECIAL]
CASES += [Case(f"text under the name {name!r}", named(name), NOT) for name in NAMES]
