"""From a data set to checked shards of images: index, shards, manifest. One function per job of the workflow."""

import csv
import json
from pathlib import Path

import numpy as np

from stablevelocity.data.class_folders import Split
from stablevelocity.data.images import ImageSource, check_count, open_source
from stablevelocity.data.shards import read_shard, shard_info, write_manifest, write_shard
from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write
from stablevelocity.progress import Progress, log
from stablevelocity.study.settings import Images

# Images decoded at a time: bounds memory whatever the size of a shard.
SLICE = 256


def source_of(settings: Images) -> ImageSource:
    return open_source(
        settings.dataset, settings.path, size=settings.size, held_out=settings.held_out, seed=settings.seed
    )


def write_image_index(settings: Images, split: Split, output: Path) -> None:
    """List a split once, as CSV of key and label, so that every shard job cuts the same list."""
    rows = source_of(settings).index(split)
    if not rows:
        raise UserError(f"images: {settings.dataset} at {settings.path} has no images in split {split!r}")
    with atomic_write(output) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "label"])
        writer.writerows(rows)


def read_index(path: Path) -> tuple[list[str], np.ndarray]:
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["key"] for row in rows], np.array([int(row["label"]) for row in rows], dtype=np.int64)


def write_image_shard(settings: Images, index: Path, shard: int, of: int, output: Path) -> None:
    """Decode slice `shard` of `of` of the index into one shard: images (n, size, size, 3) uint8, labels, rows.

    Images that cannot be read are left out; their keys and reasons stand in the shard's header and are
    counted by the manifest. `rows` are the positions in the index.
    """
    source = source_of(settings)
    keys, labels = read_index(index)
    first, last = shard * len(keys) // of, (shard + 1) * len(keys) // of
    if first == last:
        raise UserError(f"images.shards: {of} shards, but only {len(keys)} images")
    progress = Progress(f"images {output.name}", last - first, "images")
    images, kept, corrupt = [], [], []
    for start in range(first, last, SLICE):
        part = range(start, min(start + SLICE, last))
        loaded = source.load([keys[row] for row in part])
        images.append(loaded.images)
        corrupt += loaded.problems
        kept += [part[position] for position in loaded.positions]
        progress.update(len(part))
    for key, reason in corrupt:
        log.warning(f"images: {key}: {reason}")
    rows = np.array(kept, dtype=np.int64)
    arrays = {"images": np.concatenate(images), "labels": labels[rows], "rows": rows}
    write_shard(output, arrays, {"corrupt": json.dumps(corrupt)})


def write_image_manifest(settings: Images, index: Path, shards: list[Path], output: Path, corrupt: Path) -> None:
    """Check the shards against the index by count and row, and describe them; unreadable files go to `corrupt`.

    Raises UserError when an image is neither in a shard nor among the unreadable ones, or is there twice.
    """
    keys, labels = read_index(index)
    problems = [problem for shard in shards for problem in json.loads(shard_info(shard)["corrupt"])]
    rows = np.concatenate([read_shard(shard)["rows"] for shard in shards])
    unreadable = {key for key, _ in problems}
    missing = {row for row, key in enumerate(keys) if key not in unreadable} - set(rows.tolist())
    if missing or len(np.unique(rows)) != len(rows):
        raise UserError(f"{output}: {len(missing)} images of the index are in no shard, or some are in two")
    with atomic_write(corrupt) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "reason"])
        writer.writerows(problems)
    if output.stem == "train":
        check_count(len(keys), len(problems), settings.count, f"{settings.dataset} at {settings.path}")
    if problems:
        log.warning(f"images: {len(problems)} of {len(keys)} cannot be read, listed in {corrupt}")
    source = source_of(settings)
    write_manifest(
        output,
        shards,
        dataset=settings.dataset,
        num_classes=source.num_classes,
        class_names=source.class_names,
        size=settings.size,
        listed=len(keys),
        corrupt=len(problems),
        per_class=np.bincount(labels[rows], minlength=source.num_classes).tolist(),
    )
