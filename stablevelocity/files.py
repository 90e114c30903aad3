"""Files that are either whole or absent: write to a temporary name, fsync, rename."""

import contextlib
import glob
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stablevelocity.errors import UserError
from stablevelocity.locks import try_lock

LARGEST_JSON = 2**28  # bytes
LOCK = "lock"  # beside the temporary file, held while it is written


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Give a temporary path; on success flush it to disk and rename it to `path`.

    The temporary file has the name of `path` (libraries choose a format by it), in a hidden folder beside it (they
    also put temporary files of their own there). On an exception it is removed and `path` is left as it was. What a
    killed writer of `path` left is removed. Missing parent folders are made. Whoever made it, its mode follows the
    umask: colleagues of a group may read it if they may read other files.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(path)
    folder, lock = _locked_folder(path)
    try:
        temporary = folder / path.name
        yield temporary
        with open(temporary, "rb") as file:
            os.fchmod(file.fileno(), stat.S_IMODE(os.fstat(lock).st_mode))
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:  # a full disk does not say of which file
        error.filename = error.filename or str(path)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder(path: Path) -> tuple[Path, int]:
    """A new hidden folder beside `path`, and the descriptor of the lock that says that its maker lives."""
    while True:
        folder = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        folder.mkdir()
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try_lock(lock, wait=True)  # on a file system without locks leftovers stay
        if (folder / LOCK).exists():
            return folder, lock
        os.close(lock)  # cleared before it was locked


def clear_leftovers(path: Path) -> None:
    """Remove the temporary files of killed writers of `path`; one that lives holds a lock, and its file stays."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}"):
        with contextlib.suppress(OSError):  # another process clears as well
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if try_lock(descriptor):
                    shutil.rmtree(folder)
            finally:
                os.close(descriptor)


def clear_safetensors_leftovers(folder: Path) -> None:
    """Remove what a killed job that saved a model by a library left in its folder: safetensors writes to such names."""
    for file in folder.rglob(".tmp??????"):
        file.unlink(missing_ok=True)


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


def write_csv(path: Path | str, table: Any) -> None:
    """Write a data frame as CSV without its index, atomically."""
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False)


def read_text(path: Path | str, most: int) -> str:
    """The text of a file. Raises UserError where it is no regular file of at most `most` bytes of UTF-8."""
    try:
        return _regular(path, most).read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: cannot be read ({reason})") from None


def _regular(path: Path | str, most: int) -> Path:
    """Refuse to wait for the writer of a named pipe, and to read what has no end."""
    state = os.stat(path)
    if not stat.S_ISREG(state.st_mode):
        raise UserError(f"{path}: cannot be read; expected a regular file")
    if state.st_size > most:
        raise UserError(f"{path}: has more than {most:,} bytes")
    return Path(path)


def read_json(path: Path | str, *keys: str) -> Any:
    """The value in a JSON file. Raises UserError when it is not whole, or no object with these keys."""
    try:
        value = json.loads(_regular(path, LARGEST_JSON).read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not whole JSON ({error})") from None
    missing = [key for key in keys if not isinstance(value, dict) or key not in value]
    if missing:
        raise UserError(f"{path}: has no {missing[0]!r}; expected a file that a stage of the workflow has made")
    return value


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
