"""Files that are either whole or absent: write to a temporary name, fsync, rename."""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stablevelocity.errors import UserError


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success flush it to disk and rename it into place.

    The temporary file keeps the suffix of `path` (libraries choose a format by it). On an exception it is
    removed and `path` is left as it was. Missing parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def fsync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: Path | str) -> Any:
    return json.loads(Path(path).read_text())


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DamagedShard(UserError):
    """A shard that is not what its manifest says."""

    def __init__(self, file: Path, problem: str):
        super().__init__(f"{file}: {problem}; delete it and run the workflow again to make it")
        self.file, self.problem = file, problem


@contextlib.contextmanager
def damaged_put_aside(results: Path) -> Iterator[None]:
    """For the workflow's jobs on the study in `results`: rename a damaged shard that is found inside to
    `<shard>.damaged`, so that the next run makes it again.

    Only a regular file, no link, with a shard's suffix, in a folder inside `results`: no manifest from elsewhere makes
    one be renamed. The error is raised in any case.
    """
    try:
        yield
    except DamagedShard as error:
        file = error.file
        ours = file.parent.resolve().is_relative_to(results.resolve()) and file.suffix == ".safetensors"
        if not ours or file.is_symlink() or not file.is_file():
            raise
        with contextlib.suppress(FileNotFoundError):  # another process may have been faster
            file.rename(file.with_name(file.name + ".damaged"))
        raise UserError(
            f"{file}: {error.problem}; put aside as {file.name}.damaged, run the workflow again to make it"
        ) from None
