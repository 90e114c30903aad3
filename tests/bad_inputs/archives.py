"""Archives: `.npz` batches that are to be scored, and the official tars of ImageNet that are cut or damaged."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from bad_inputs.case import Case
from bad_inputs.images import PICTURE, encoded
from stablevelocity.data.class_folders import ImageNetTar
from stablevelocity.evaluation.image_sets import open_images
from stablevelocity.evaluation.score import read_adm_statistics

# --- batches ---------------------------------------------------------------------------------------------------------

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)
KIND, SHAPE = "expected uint8 in 0..255", r"expected \(n, height, width, 3\)"
ARRAYS: list[tuple[str, Any, str]] = [
    ("floats in 0..1", IMAGES / 255, "holds float64, " + KIND),
    ("floats in -1..1", (IMAGES / 127.5 - 1).astype(np.float32), "holds float32, " + KIND),
    ("half floats", IMAGES.astype(np.float16), "holds float16, " + KIND),
    ("signed bytes", IMAGES.astype(np.int8), "holds int8, " + KIND),
    ("16 bits", IMAGES.astype(np.uint16) * 257, "holds uint16, " + KIND),
    ("64-bit integers", IMAGES.astype(np.int64), "holds int64, " + KIND),
    ("truth values", IMAGES > 127, "holds bool, " + KIND),
    ("complex numbers", IMAGES.astype(np.complex64), "holds complex64, " + KIND),
    ("texts", np.array(["a", "b"]), "holds <U1, " + KIND),
    ("objects", np.array([{"a": 1}, None], dtype=object), "holds object, " + KIND),
    ("records", np.zeros(3, [("image", "u1", (6, 5, 3))]), "expected uint8"),
    ("channels first", IMAGES.transpose(0, 3, 1, 2).copy(), SHAPE),
    ("grey", IMAGES[..., 0], SHAPE),
    ("one channel", IMAGES[..., :1], SHAPE),
    ("with alpha", np.concatenate([IMAGES, IMAGES[..., :1]], 3), SHAPE),
    ("one image without its axis", IMAGES[0], SHAPE),
    ("videos", IMAGES[None], SHAPE),
    ("a number", np.uint8(3), SHAPE),
    ("no image", IMAGES[:0], r"holds 0 image\(s\)"),
    ("one image", IMAGES[:1], r"holds 1 image\(s\)"),
    ("images without height", IMAGES[:, :0], SHAPE),
    ("Fortran order", np.asfortranarray(IMAGES), "Fortran order"),
]


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def zipped(content: bytes, name: str = "arr_0.npy", kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def changed(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


WHOLE = npz(arr_0=IMAGES)
ODD_SHAPES = (
    "(-1, 8, 8, 3)",
    "(7, -8, -8, 3)",
    "(9223372036854775808, 8, 8, 3)",
    "(7, 1099511627776, 1099511627776, 3)",
)


def claims(shape: str) -> bytes:
    """An array that is its header alone."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    return zipped(b"\x93NUMPY\1\0v\0" + header.encode().ljust(117) + b"\n")


BATCHES: list[tuple[str, bytes, str]] = [
    ("empty", b"", "not a readable .npz"),
    ("text", b"no archive", "not a readable .npz"),
    ("an .npy with another suffix", npy(IMAGES), "not a readable .npz"),
    ("cut in the middle", WHOLE[: len(WHOLE) // 2], "not a readable .npz"),
    ("without its directory", WHOLE[:-60], "not a readable .npz"),
    ("a zip without arrays", zipped(b"", "a.txt"), "no array `arr_0`"),
    ("an archive of nothing", zipped(b"")[-22:], "not a readable .npz|no array"),
    ("another name", npz(images=IMAGES), "no array `arr_0`"),
    ("in a folder of the zip", zipped(npy(IMAGES), "samples/arr_0.npy"), "no array `arr_0`"),
    ("arr_0 is text", zipped(b"no array at all, nor a header"), "not a readable .npz"),
    ("arr_0 is empty", zipped(b""), "not a readable .npz"),
    ("arr_0 ends in its header", zipped(npy(IMAGES)[:40]), "not a readable .npz"),
    ("arr_0 ends in its images", zipped(npy(IMAGES)[:-100]), "arr_0 ends after 4 of 7 images"),
    ("arr_0 says it has a thousand million images", claims("(1000000000, 256, 256, 3)"), "ends after 0 of 1000000000"),
    *((f"arr_0 of shape {shape}", claims(shape), SHAPE) for shape in ODD_SHAPES),
    ("arr_0 of a shape that is text", claims("('7', 8, 8, 3)"), "not a readable .npz"),
    ("a header that is code", zipped(b"\x93NUMPY\1\0\x10\0exit()".ljust(40)), "not a readable .npz"),
    ("a wrong checksum", changed(WHOLE, len(WHOLE) // 2), "not a readable .npz .Bad CRC"),
    (
        "damaged compression",
        changed(zipped(npy(IMAGES), kind=zipfile.ZIP_DEFLATED), 300),
        "not a readable .npz .Bad CRC",
    ),
    ("damage behind the first images", changed(npz(arr_0=np.tile(IMAGES, (60, 8, 8, 1))), 1_000_000), "npz .Bad CRC"),
    ("an unknown version", zipped(changed(npy(IMAGES), 6)), "npy format|not a readable .npz"),
]


def scored(content: bytes) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        (folder / "x.npz").write_bytes(content)
        list(open_images(folder / "x.npz").batches(2))

    return attempt


# --- statistics of a reference ---------------------------------------------------------------------------------------

MU, SIGMA = np.zeros(4), np.eye(4)
GOOD = {"mu": MU, "sigma": SIGMA, "mu_s": MU, "sigma_s": SIGMA}
STATISTICS: list[tuple[str, dict[str, Any], str]] = [
    *((f"without {name}", {key: GOOD[key] for key in GOOD if key != name}, f"not {name}") for name in list(GOOD)[1:]),
    ("mu with NaN", GOOD | {"mu": MU * np.nan}, "mu or sigma holds NaN"),
    ("sigma_s with infinity", GOOD | {"sigma_s": SIGMA / 0.0}, "mu_s or sigma_s holds NaN"),
    ("sigma of another width", GOOD | {"sigma": np.eye(5)}, "do not fit each other"),
    ("sigma not square", GOOD | {"sigma": np.ones((4, 3))}, "do not fit each other"),
    ("mu with two axes", GOOD | {"mu": MU[None]}, "do not fit each other"),
    ("mu is objects", GOOD | {"mu": np.array([None])}, "holds no statistics in ADM's layout"),
    ("mu is text", GOOD | {"mu": np.array(["a"])}, "holds no statistics in ADM's layout"),
]


def statistics(arrays: dict[str, Any]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        np.savez(folder / "x.npz", **arrays)
        read_adm_statistics(folder / "x.npz")

    return attempt


# --- ImageNet's tars -------------------------------------------------------------------------------------------------

FISH, SHARK, HEN = "n01440764", "n01484850", "n01514859"
TRAIN, VAL, DEVKIT = ImageNetTar.FILE, ImageNetTar.HELD_OUT, ImageNetTar.DEVKIT


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


IMAGE = encoded(PICTURE, "JPEG")
INNER = {f"{name}.tar": tar_of({f"{name}_{k}.JPEG": IMAGE for k in (1, 2)}) for name in (FISH, SHARK, HEN)}
OUTER = tar_of(INNER)
STEP = 512 + len(INNER[f"{FISH}.tar"])  # from one member of the outer tar to the next
SECOND = 1024 + len(IMAGE) // 512 * 512 + 512  # the header of the second image of the first class
VALS = tar_of({f"ILSVRC2012_val_0000000{k}.JPEG": IMAGE for k in (1, 2, 3)})


def zeroed(content: bytes, start: int, length: int = 512) -> bytes:
    return content[:start] + bytes(length) + content[start + length :]


def devkit(labels: str, ids: tuple[str, ...] = (HEN, FISH, SHARK), table: bytes | None = None) -> bytes:
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    synsets, buffer = np.array([(k + 1, name, "") for k, name in enumerate(ids)], dtype=kinds), io.BytesIO()
    savemat(buffer, {"synsets": synsets})
    files = {"d/meta.mat": buffer.getvalue() if table is None else table}
    files["d/ILSVRC2012_validation_ground_truth.txt"] = labels.encode()
    return gzip.compress(tar_of(files))


KIT = devkit("1\n2\n3\n")
TARS: list[tuple[str, dict[str, bytes], str]] = [
    ("train tar empty", {TRAIN: b""}, f"{TRAIN} is no whole tar"),
    ("train tar of zeros", {TRAIN: bytes(10240)}, "no class folder"),
    ("train tar is text", {TRAIN: b"x" * 2000}, f"{TRAIN} is no whole tar"),
    ("train tar compressed", {TRAIN: gzip.compress(OUTER)}, f"{TRAIN} is no whole tar"),
    ("train tar is a page", {TRAIN: b"<html>".ljust(2000)}, f"{TRAIN} is no whole tar"),
    ("train tar cut at the second header", {TRAIN: OUTER[:STEP]}, f"{TRAIN} is no whole tar"),
    ("train tar cut within the second header", {TRAIN: OUTER[: STEP + 200]}, f"{TRAIN} is no whole tar"),
    ("train tar cut within a member", {TRAIN: OUTER[: STEP + 2000]}, f"{TRAIN} is no whole tar"),
    ("train tar cut at its end", {TRAIN: OUTER[: 3 * STEP]}, f"{TRAIN} is no whole tar"),
    ("train tar with its second header zeroed", {TRAIN: zeroed(OUTER, STEP)}, f"{TRAIN} is no whole tar"),
    ("train tar with its first header zeroed", {TRAIN: zeroed(OUTER, 0)}, f"{TRAIN} is no whole tar"),
    ("train tar with a damaged header", {TRAIN: changed(OUTER, STEP + 3)}, f"{TRAIN} is no whole tar"),
    ("train tar never filled to its end", {TRAIN: OUTER[: STEP + 1000] + bytes(2**21)}, "no whole tar"),
    (
        "class tar with a header zeroed",
        {TRAIN: zeroed(OUTER, SECOND)},
        f"{FISH}.tar inside",
    ),
    ("class tar that is text", {TRAIN: tar_of(INNER | {f"{HEN}.tar": b"x" * 2000})}, f"{HEN}.tar inside"),
    ("class tar that is empty", {TRAIN: tar_of(INNER | {f"{HEN}.tar": b""})}, f"{HEN}.tar inside"),
    ("class tar cut", {TRAIN: tar_of(INNER | {f"{HEN}.tar": INNER[f"{HEN}.tar"][:600]})}, f"{HEN}.tar inside"),
    ("a class that is no WordNet id", {TRAIN: tar_of(INNER | {"cats.tar": INNER[f"{HEN}.tar"]})}, "'cats'"),
    ("a note beside the classes", {TRAIN: tar_of(INNER | {"README": b"x"})}, "'README'"),
    ("val tar cut", {TRAIN: OUTER, VAL: VALS[:700], DEVKIT: KIT}, f"{VAL} is no whole tar"),
    ("val tar with a header zeroed", {TRAIN: OUTER, VAL: zeroed(VALS, 0), DEVKIT: KIT}, f"{VAL} is no whole tar"),
    ("val tar without the devkit", {TRAIN: OUTER, VAL: VALS}, f"{DEVKIT} is needed"),
    ("devkit cut", {TRAIN: OUTER, VAL: VALS, DEVKIT: KIT[: len(KIT) // 2]}, f"{DEVKIT} is needed"),
    ("devkit of a few bytes", {TRAIN: OUTER, VAL: VALS, DEVKIT: KIT[:8]}, f"{DEVKIT} is needed"),
    ("devkit damaged", {TRAIN: OUTER, VAL: VALS, DEVKIT: changed(KIT, len(KIT) // 2)}, f"{DEVKIT} is needed"),
    ("devkit is no archive", {TRAIN: OUTER, VAL: VALS, DEVKIT: b"x" * 99}, f"{DEVKIT} is needed"),
    ("devkit without its table", {TRAIN: OUTER, VAL: VALS, DEVKIT: gzip.compress(tar_of({}))}, f"{DEVKIT} is needed"),
    ("devkit with a damaged table", {TRAIN: OUTER, VAL: VALS, DEVKIT: devkit("1\n", table=b"x" * 300)}, DEVKIT),
    ("devkit with a label that is text", {TRAIN: OUTER, VAL: VALS, DEVKIT: devkit("1\ntwo\n3\n")}, DEVKIT),
    ("devkit with an unknown label", {TRAIN: OUTER, VAL: VALS, DEVKIT: devkit("1\n2\n1001\n")}, DEVKIT),
    ("devkit with too few labels", {TRAIN: OUTER, VAL: VALS, DEVKIT: devkit("1\n2\n")}, "3 images, but the devkit 2"),
    (
        "val tar with a class that train lacks",
        {TRAIN: tar_of({f"{FISH}.tar": INNER[f"{FISH}.tar"]}), VAL: VALS, DEVKIT: KIT},
        f"{VAL} has classes that .*{TRAIN} has not: {SHARK}, {HEN}",
    ),
]


def listed(files: dict[str, bytes]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        source = ImageNetTar(folder, size=8)
        source.index("train")
        source.index("heldout")

    return attempt


CASES = [Case(f"batch of {name}", scored(npz(arr_0=array)), expected) for name, array, expected in ARRAYS]
CASES += [Case(f"batch: {name}", scored(content), expected) for name, content, expected in BATCHES]
CASES += [Case(f"statistics: {name}", statistics(arrays), expected) for name, arrays, expected in STATISTICS]
CASES += [Case(name, listed(files), expected) for name, files, expected in TARS]
