"""From a data set to checked shards of images: index, shards, manifest. One function per job of the workflow."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stablevelocity.data.class_folders import Split, check_classes_have_images
from stablevelocity.data.decoding import shown
from stablevelocity.data.images import ImageSource, check_count, open_source
from stablevelocity.data.shards import read_shard, shard_info, write_manifest, write_shard
from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write
from stablevelocity.progress import Progress, log
from stablevelocity.study.settings import Images

# Images decoded at a time: bounds memory whatever the size of a shard.
SLICE = 256


def source_of(settings: Images) -> ImageSource:
    held_out, seed = settings.held_out, settings.seed
    return open_source(settings.dataset, settings.path, size=settings.size, held_out=held_out, seed=seed)


def write_image_index(settings: Images, split: Split, output: Path) -> None:
    """List a split once, as CSV of key and label, so that every shard job cuts the same list.

    Raises UserError when it is empty, or lacks a class in the train split, or has fewer images than shards.
    """
    source, where = source_of(settings), f"{settings.dataset} at {settings.path}"
    rows = source.index(split)
    if not rows:
        part = {"train": "train/", "heldout": "val/"}[split] if settings.dataset == "folder" else f"split {split!r}"
        raise UserError(f"images: {where} has no images in {part}")
    if split == "train":
        counts = np.bincount([label for _, label in rows], minlength=len(source.class_names))
        check_classes_have_images(source.class_names, counts.tolist(), where)
        if len(rows) < settings.shards:
            raise UserError(f"images.shards: {settings.shards} shards, but {where} has only {len(rows)} train images")
    _write_csv(output, ["key", "label"], rows)


def _write_csv(path: Path, header: list[str], rows: Sequence[Sequence[object]]) -> None:
    """A file name may hold line breaks, and bytes that are no text: both come back as they were."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def read_index(path: Path) -> tuple[list[str], np.ndarray]:
    """(keys, labels). Raises UserError when the file is no index."""
    try:
        with open(path, newline="", errors="surrogateescape") as file:
            rows = [(row["key"], int(row["label"])) for row in csv.DictReader(file)]
        if not rows or not all(0 <= label < 2**31 for _, label in rows):
            raise ValueError
    except (KeyError, TypeError, ValueError, csv.Error):
        raise UserError(f"{path}: is no index of images (CSV of key and label); delete it to make it again") from None
    return [key for key, _ in rows], np.array([label for _, label in rows], dtype=np.int64)


def write_image_shard(settings: Images, index: Path, shard: int, of: int, output: Path) -> None:
    """Decode slice `shard` of `of` of the index into one shard: images (n, size, size, 3) uint8, labels, rows.

    Images that cannot be read are left out; their keys and reasons stand in the shard's header and are
    counted by the manifest. `rows` are the positions in the index.
    """
    source = source_of(settings)
    keys, labels = read_index(index)
    first, last = shard * len(keys) // of, (shard + 1) * len(keys) // of
    if not first < last <= len(keys):
        raise UserError(f"images.shards: shard {shard} of {of}, but there are {len(keys)} images")
    progress = Progress(f"images {output.name}", last - first, "images")
    images, kept, corrupt = [], [], []
    for start in range(first, last, SLICE):
        part = range(start, min(start + SLICE, last))
        try:
            loaded = source.load([keys[row] for row in part])
        except (KeyError, IndexError, ValueError):
            raise UserError(f"{index}: lists what {settings.dataset} has not; delete it to make it again") from None
        images.append(loaded.images)
        corrupt += loaded.problems
        kept += [part[position] for position in loaded.positions]
        progress.update(len(part))
    for key, reason in corrupt:
        log.warning(f"images: {shown(key)}: {reason}")
    if not kept:
        key, reason = corrupt[0]
        raise UserError(f"none of the {last - first} images of {output.name} can be read ({shown(key)}: {reason})")
    rows = np.array(kept, dtype=np.int64)
    arrays = {"images": np.concatenate(images), "labels": labels[rows], "rows": rows}
    write_shard(output, arrays, {"corrupt": json.dumps(corrupt)})


def write_image_manifest(settings: Images, index: Path, shards: list[Path], output: Path, corrupt: Path) -> None:
    """Check the shards against the index by count and row, and describe them; unreadable files go to `corrupt`.

    Raises UserError when an image is neither in a shard nor among the unreadable ones, or is there twice, and when a
    class of the train split has no readable image.
    """
    keys, labels = read_index(index)
    problems = [problem for shard in shards for problem in json.loads(shard_info(shard)["corrupt"])]
    rows = np.concatenate([read_shard(shard, "rows")["rows"] for shard in shards])
    unreadable = {key for key, _ in problems}
    missing = {row for row, key in enumerate(keys) if key not in unreadable} - set(rows.tolist())
    if missing or len(np.unique(rows)) != len(rows):
        raise UserError(f"{output}: {len(missing)} images of the index are in no shard, or some are in two")
    source, where = source_of(settings), f"{settings.dataset} at {settings.path}"
    if labels.max() >= len(source.class_names):
        raise UserError(f"{index}: has label {labels.max()}, but {where} only {len(source.class_names)} classes")
    _write_csv(corrupt, ["key", "reason"], problems)
    per_class = np.bincount(labels[rows], minlength=len(source.class_names)).tolist()
    if output.stem == "train":
        check_count(len(keys), len(problems), settings.count, where)
        check_classes_have_images(source.class_names, per_class, where)
    if problems:
        log.warning(f"images: {len(problems)} of {len(keys)} cannot be read, listed in {corrupt}")
    write_manifest(
        output,
        shards,
        dataset=settings.dataset,
        num_classes=len(source.class_names),
        class_names=source.class_names,
        size=settings.size,
        listed=len(keys),
        corrupt=len(problems),
        per_class=per_class,
    )
