"""Folders that are no image folder or data set, outputs that cannot be written, and a disk that is full."""

import csv
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bad_inputs.case import Case, command
from bad_inputs.images import OTHERS, PICTURE, encoded
from bad_inputs.manifests import images
from stablevelocity.data.images import open_source
from stablevelocity.data.shards import write_manifest, write_shard
from stablevelocity.data.stages.images import write_image_index, write_image_manifest, write_image_shard
from stablevelocity.evaluation.classifier import DigitClassifier, save_classifier
from stablevelocity.evaluation.image_sets import open_images
from stablevelocity.models.small_autoencoder import SmallAutoencoder
from stablevelocity.study.settings import Images

GOOD, BAD = encoded(PICTURE, "PNG"), b"no picture"

# --- class folders: index, shards, manifest --------------------------------------------------------------------------


def folder_of(files: dict[str, bytes | None], **settings: Any) -> Callable[[Path], None]:
    """What the image stages make of a data set of these files; None is an empty folder."""

    def attempt(folder: Path) -> None:
        data, made = folder / "data", folder / "work"
        data.mkdir()
        for name, content in files.items():
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            (data / name).mkdir() if content is None else (data / name).write_bytes(content)
        chosen = Images(dataset="folder", path=data, size=8, **({"shards": 1} | settings))
        for split in ("train", "heldout"):
            write_image_index(chosen, split, made / f"{split}.csv")
        write_image_shard(chosen, made / "train.csv", 0, 1, made / "s.safetensors")
        write_image_manifest(
            chosen, made / "train.csv", [made / "s.safetensors"], made / "train.json", made / "corrupt.csv"
        )

    return attempt


BOTH: dict[str, bytes | None] = {"train/a/1.png": GOOD, "train/b/1.png": GOOD, "val/a/1.png": GOOD, "val/b/1.png": GOOD}
FISH = "n01440764"
FOLDERS: list[tuple[str, dict[str, bytes | None], dict[str, Any], str]] = [
    ("an empty folder", {}, {}, "has neither train/<class>/<image> nor"),
    ("pictures without classes", {"1.png": GOOD}, {}, "has neither train/<class>/<image> nor"),
    ("train that is a file", {"train": GOOD}, {}, "has neither train/<class>/<image> nor"),
    ("Train in capitals", {"Train/a/1.png": GOOD}, {}, "has neither train/<class>/<image> nor"),
    ("train without classes", {"train/1.png": GOOD}, {}, "no class folder in .*train"),
    ("train that is empty", {"train": None}, {}, "no class folder in .*train"),
    ("train with hidden classes only", {"train/.a/1.png": GOOD}, {}, "no class folder in .*train"),
    ("an empty class", BOTH | {"train/c": None}, {}, "no readable image of class 'c'"),
    ("a class with an empty folder", BOTH | {"train/c/d": None}, {}, "no readable image of class 'c'"),
    ("a class of hidden files", BOTH | {"train/c/.DS_Store": b"x"}, {}, "no readable image of class 'c'"),
    ("a folder of the operating system", BOTH | {"train/__MACOSX": None}, {}, "of class '__MACOSX'"),
    ("lost+found", BOTH | {"train/lost+found": None}, {}, r"of class 'lost\+found'"),
    ("seven empty classes", BOTH | {f"train/c{k}": None for k in range(7)}, {}, "'c4' and 2 more"),
    ("a class that cannot be read", BOTH | {"train/b/1.png": BAD}, {}, "no readable image of class 'b'"),
    (
        "nothing that can be read",
        {name: BAD for name in BOTH},
        {},
        "none of the 2 images .* can be read .*train/a/1.png",
    ),
    ("no val", {name: BOTH[name] for name in BOTH if "train" in name}, {}, "has no images in val/"),
    ("an empty val", {name: BOTH[name] for name in BOTH if "train" in name} | {"val": None}, {}, "no images in val/"),
    ("a class in val only", BOTH | {"val/c/1.png": GOOD}, {}, r"that train has not: \['c'\]"),
    ("a class that is no WordNet id", BOTH | {f"train/{FISH}/1.png": GOOD}, {}, "that are no WordNet id .*'a', 'b'"),
    ("a class with a line break", BOTH | {"train/a\nb/1.png": GOOD}, {}, r"cannot be printed: 'a\\nb'"),
    ("a class of foreign bytes", BOTH | {"train/\udcff/1.png": GOOD}, {}, r"cannot be printed: '\\udcff'"),
    ("a class of an escape", BOTH | {"train/\x1b[31m/1.png": GOOD}, {}, "cannot be printed"),
    ("more shards than pictures", BOTH, {"shards": 3}, "3 shards, but .* has only 2 train images"),
    ("another count", BOTH, {"count": 3}, r"has 2 readable images \(0 unreadable\), expected 3"),
    (
        "a count that unreadable ones spoil",
        BOTH | {"train/a/2.png": BAD},
        {"count": 3},
        r"2 readable images \(1 unread",
    ),
]


def shard_beyond(folder: Path) -> None:
    write_image_index(Images(), "heldout", folder / "i.csv")
    write_image_shard(Images(), folder / "i.csv", 2, 2, folder / "made" / "s.safetensors")


def lost_image(folder: Path) -> None:
    """A shard of an older index, which has one image less."""
    folder_of(BOTH)(folder)
    index = folder / "work" / "train.csv"
    with open(index, "a", newline="") as file:
        csv.writer(file).writerow(["train/a/2.png", 0])
    chosen = Images(dataset="folder", path=folder / "data", size=8, shards=1)
    shard = [folder / "work" / "s.safetensors"]
    write_image_manifest(chosen, index, shard, folder / "made" / "train.json", folder / "made" / "c.csv")


# --- CIFAR-10 --------------------------------------------------------------------------------------------------------


def cifar(files: dict[str, bytes]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        open_source("cifar10", folder, size=32)

    return attempt


BINARY = {
    f"cifar-10-batches-bin/{name}.bin": bytes(3073)
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
}
FIRST, META = "cifar-10-batches-bin/data_batch_1.bin", "cifar-10-batches-bin/batches.meta.txt"
WITH_NAMES = BINARY | {META: b"a b c d e f g h i j"}
CIFAR: list[tuple[str, dict[str, bytes], str]] = [
    ("no data", {"readme": b""}, "no CIFAR-10 in"),
    ("the archive, not unpacked", {"cifar-10-binary.tar.gz": b"x"}, "unpack the official archive"),
    (
        "one batch missing",
        {name: WITH_NAMES[name] for name in WITH_NAMES if name != FIRST},
        "data_batch_1.bin cannot be",
    ),
    ("an empty batch", WITH_NAMES | {FIRST: b""}, "is not a batch of CIFAR-10"),
    ("a batch cut", WITH_NAMES | {FIRST: bytes(3000)}, "is not a batch of CIFAR-10"),
    ("a label of 10", WITH_NAMES | {FIRST: b"\x0a" + bytes(3072)}, "is not a batch of CIFAR-10"),
    ("no class names", BINARY, "batches.meta.txt"),
    ("too few class names", BINARY | {META: b"a b"}, "batches.meta.txt"),
    ("the Python version damaged", {"cifar-10-batches-py/data_batch_1": b"x"}, "differs by its MD5"),
]

# --- folders that are to be scored ----------------------------------------------------------------------------------


def scored(files: dict[str, bytes], name: str = "") -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        list(open_images(folder / name).batches(4))

    return attempt


SMALL = encoded(PICTURE.resize((20, 20)), "PNG")
SCORED: list[tuple[str, dict[str, bytes], str, str]] = [
    ("nothing", {}, "", "no images and no manifest.json$"),
    ("one picture", {"a.png": GOOD}, "", r"holds 1 image\(s\)"),
    ("texts", {"a.png": BAD, "b.txt": BAD}, "", r"no images .*2 other file\(s\): a.png"),
    ("hidden pictures", {".a.png": GOOD, ".b/c.png": GOOD}, "", "no images .*hidden name"),
    ("pictures of two sizes", {"a.png": GOOD, "b.png": SMALL}, "", "b.png: 20x20 px, but a.png has 24x20"),
    ("a cut picture", {"a.png": GOOD, "b.png": GOOD[:200]}, "", "b.png: cannot be used as an image"),
    ("a file of text", {"a.txt": BAD}, "a.txt", "expected a manifest"),
    ("a tar", {"a.tar": BAD}, "a.tar", "expected a manifest"),
    ("a single picture", {"a.png": GOOD}, "a.png", "expected a manifest"),
    ("a folder that is not there", {}, "no", "no such file or folder"),
    ("a batch that is not there", {}, "no.npz", "no such file or folder"),
    ("a manifest that is empty", {"manifest.json": b""}, "", "is not whole JSON"),
    ("a manifest of nothing", {"manifest.json": b"{}"}, "", "has no 'arrays'"),
]

# --- outputs that cannot be written ----------------------------------------------------------------------------------


def study(folder: Path) -> Path:
    text = {"name": "x", "arms": {"a": {"label": "A"}}, "sampling": {"main": "o", "samplers": {"o": {}}}}
    text |= {"images": {"dataset": "folder", "path": str(folder / "data"), "size": 16, "shards": 1}}
    (folder / "study.json").write_text(json.dumps(text))
    for split in ("train", "val"):
        for number in range(12):
            place = folder / "data" / split / ("ab"[number % 2])
            place.mkdir(parents=True, exist_ok=True)
            OTHERS[number % 2].rotate(number).save(place / f"{number}.png")
    return folder / "study.json"


def index_words(folder: Path) -> list[object]:
    return ["image-index", "--study", study(folder), "--split", "train"]


def shard_words(folder: Path) -> list[object]:
    given = study(folder)
    command("image-index", "--study", given, "--split", "train", "--output", folder / "i.csv")
    return ["image-shard", "--study", given, "--index", folder / "i.csv", "--shard", 0, "--of", 1]


def latent_words(folder: Path) -> list[object]:
    images(folder)
    SmallAutoencoder(widths=[8, 8], channels=2, side=4).save_pretrained(folder / "vae")
    description = {"autoencoder": str(folder / "vae"), "revision": None}
    (folder / "vae.json").write_text(json.dumps(description))
    return ["latent-shard", "--images", folder / "a.safetensors", "--autoencoder", folder / "vae.json"]


def convert_words(folder: Path) -> list[object]:
    torch.save({"a": torch.zeros(50_000)}, folder / "x.pt")
    return ["convert-encoder", folder / "x.pt"]


def score_words(folder: Path) -> list[object]:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    write_shard(folder / "s.safetensors", {"images": pixels})
    write_manifest(folder / "s.json", [folder / "s.safetensors"])
    save_classifier(DigitClassifier(size=8, num_classes=3), folder / "judge")
    return ["score", folder / "s.json", folder / "s.json", "--weights", folder / "judge", "--extractor", "digits"]


VERBS: dict[str, Callable[[Path], list[object]]] = {
    "image-index": index_words,
    "image-shard": shard_words,
    "latent-shard": latent_words,
    "convert-encoder": convert_words,
    "score": score_words,
}


def output_is_folder(words: Callable[[Path], list[object]]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        (folder / "made" / "out").mkdir(parents=True)
        command(*words(folder), "--output", folder / "made" / "out")

    return attempt


def above_is_file(words: Callable[[Path], list[object]]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        (folder / "file").touch()
        command(*words(folder), "--output", folder / "file" / "out")

    return attempt


def disk_full(words: Callable[[Path], list[object]], size: int) -> Callable[[Path], None]:
    """No file may grow beyond `size` bytes, which fails as a full disk does, with another word."""

    def attempt(folder: Path) -> None:
        given = words(folder)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            command(*given, "--output", folder / "made" / "out.safetensors")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return attempt


def nested(folder: Path) -> None:
    """Deeper than a program recurses, and slow to look at: each folder is looked up from the root of the disk."""
    deepest = folder / "set" / "/".join("a" * 300)
    deepest.mkdir(parents=True)
    (deepest / "1.png").write_bytes(GOOD)
    open_images(folder / "set")


CASES = [Case("300 folders inside each other", nested, "more than 100 folders inside each other")]
CASES += [Case(f"data set: {name}", folder_of(files, **more), line) for name, files, more, line in FOLDERS]
CASES += [
    Case("data set that is not there", lambda f: open_source("folder", f / "no", size=8) and None, "needs the folder"),
    Case("shard beyond the last", shard_beyond, "shard 2 of 2"),
    Case("an image in no shard", lost_image, "1 images of the index are in no shard"),
]
CASES += [Case(f"CIFAR-10: {name}", cifar(files), line) for name, files, line in CIFAR]
CASES += [Case(f"scored: {name}", scored(files, path), line) for name, files, path, line in SCORED]
for verb, words in VERBS.items():
    CASES += [
        Case(f"{verb}: output is a folder", output_is_folder(words), "is a folder, expected a file"),
        Case(f"{verb}: above its output is a file", above_is_file(words), "file is no folder that can be written to"),
        Case(f"{verb}: disk full", disk_full(words, 100), "File too large"),
    ]
