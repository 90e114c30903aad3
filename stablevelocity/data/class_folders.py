"""ImageNet as it is handed out: class folders, or the official tar of tars read in place."""

import contextlib
import hashlib
import io
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from stablevelocity.data.decoding import MAX_BYTES, Loaded, collect, decode, files_below, read_regular, reason_of, shown
from stablevelocity.errors import UserError
from stablevelocity.progress import log

Split = Literal["train", "heldout"]
THREADS = 4  # decoders release the interpreter lock
LONGEST_END = 2**20  # zeros after the last member of a tar: more is a file that was never filled
_DEVKIT_FILES = ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")
_WORDNET_ID = re.compile(r"n\d{8}")


def check_class_names(names: list[str], where: Path) -> None:
    """Refuse a wrong folder among WordNet ids: every label after it would be shifted by one.

    Folders with names of any other kind (no WordNet id among them) are a data set of their own.
    """
    if not names:
        raise UserError(f"images: no class folder in {where}; expected {where.name}/<class>/<image>")
    odd = [name for name in names if not name.isprintable()]
    if odd:
        raise UserError(f"images: {where} has a class whose name cannot be printed: {odd[0]!a}; rename it")
    if not any(_WORDNET_ID.fullmatch(name) for name in names):
        return
    from timm.data import ImageNetInfo

    known = set(ImageNetInfo("imagenet-1k").label_names())
    wrong = [name for name in names if name not in known]
    if wrong:
        raise UserError(
            f"images: {where} has {len(wrong)} class folder(s) that are no WordNet id of ILSVRC 2012: "
            f"{', '.join(repr(name) for name in wrong[:5])}; move them away"
        )


def check_classes_have_images(names: Sequence[str], counts: Sequence[int], where: Path | str) -> None:
    """Refuse classes of `names` without an image in the train split: a network would sample what it never saw."""
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        raise UserError(
            f"images: {where} has no readable image of class {', '.join(repr(name) for name in empty[:5])}{more}; "
            "remove the class, or give it images"
        )


class ClassFolders:
    """`train/<class>/<image>` and `val/<class>/<image>`; classes and files in sorted order.

    Every file of a class folder and of the folders below it is listed (hidden names apart): one that is no image is a
    problem to report.
    """

    def __init__(self, path: Path, *, size: int) -> None:
        if not (path / "train").is_dir():
            raise UserError(f"images: {path} has neither train/<class>/<image> nor {ImageNetTar.FILE}; expected one")
        self._path = path
        self._size = size
        self.class_names = _folders(path / "train")
        check_class_names(self.class_names, path / "train")
        strange = set(_folders(path / "val")) - set(self.class_names) if (path / "val").is_dir() else set()
        if strange:
            raise UserError(f"images: {path / 'val'} has class folder(s) that train has not: {sorted(strange)[:5]}")

    def index(self, split: Split) -> list[tuple[str, int]]:
        root = self._path / ("train" if split == "train" else "val")
        entries, left_out = [], []
        for label, name in enumerate(self.class_names):
            if (root / name).is_dir():
                files, hidden = files_below(root / name)
                entries += [(file.relative_to(self._path).as_posix(), label) for file in files]
                left_out += hidden
        if root.is_dir():
            left_out += [entry for entry in root.iterdir() if entry.name not in self.class_names]
        if left_out:
            names = ", ".join(shown(entry.relative_to(root)) for entry in left_out[:4])
            log.warning(
                f"images: {root}: left out {len(left_out)} name(s) that are hidden or lie beside the class folders: "
                f"{names}{' ...' if len(left_out) > 4 else ''}"
            )
        return entries

    def load(self, keys: Sequence[str]) -> Loaded:
        with ThreadPoolExecutor(THREADS) as pool:
            return collect(keys, list(pool.map(self._read, keys)), self._size)

    def _read(self, key: str) -> np.ndarray | str:
        try:
            return decode(read_regular(self._path / key), self._size)
        except OSError as error:
            return reason_of(error)


def listing(path: Path, split: Split) -> str:
    """What tells whether images came or went: hash of the names that a split's folder holds, or size of its tar.

    Contents are not read: an image that was replaced under its name is not noticed.
    """
    root = path / ("train" if split == "train" else "val")
    tar = path / (ImageNetTar.FILE if split == "train" else ImageNetTar.HELD_OUT)
    if (path / ImageNetTar.FILE).is_file():
        return str(tar.stat().st_size) if tar.is_file() else ""
    if not root.is_dir():
        return ""
    names = "\0".join(str(file.relative_to(root)) for file in files_below(root).files)
    return hashlib.sha256(os.fsencode(names)).hexdigest()


def _folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


class ImageNetTar:
    """The official `ILSVRC2012_img_train.tar`: one tar per class inside, read in place without unpacking.

    Beside it, for the held-out split, `ILSVRC2012_img_val.tar` and the labels in `ILSVRC2012_devkit_t12.tar.gz`.
    Listing reads one header per image (1,281,167 of them), so list once and keep the list; `load` reads only
    the headers of the classes that it is asked for.

    Raises UserError, one line with the file, for an archive that is cut or damaged where its members are listed.
    """

    FILE = "ILSVRC2012_img_train.tar"
    HELD_OUT = "ILSVRC2012_img_val.tar"
    DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"

    def __init__(self, path: Path, *, size: int) -> None:
        self._folder = path
        self._file = path / self.FILE
        self._size = size
        with _open_tar(self._file) as outer:
            self._members = {Path(name).stem: member for name, member in _members(outer).items()}
        self.class_names = sorted(self._members)
        check_class_names(self.class_names, self._file)

    def index(self, split: Split) -> list[tuple[str, int]]:
        if split == "heldout":
            return self._held_out()
        entries = []
        with _open_tar(self._file) as outer:
            for label, name in enumerate(self.class_names):
                with self._inner(outer, name) as inner:
                    entries += [(f"{name}/{file}", label) for file in sorted(_members(inner))]
        return entries

    def load(self, keys: Sequence[str]) -> Loaded:
        results: list[np.ndarray | str] = [""] * len(keys)
        by_class: dict[str, list[int]] = {}
        for k, key in enumerate(keys):
            by_class.setdefault(key.partition("/")[0], []).append(k)
        with ThreadPoolExecutor(THREADS) as pool, contextlib.ExitStack() as stack:
            outer = stack.enter_context(_open_tar(self._file))
            for name, places in by_class.items():
                with _open_tar(self._folder / self.HELD_OUT) if name == "val" else self._inner(outer, name) as tar:
                    members = _members(tar)
                    contents = [_content(tar, members[keys[k].partition("/")[2]]) for k in places]
                for k, result in zip(places, pool.map(self._decode, contents), strict=True):
                    results[k] = result
        return collect(keys, results, self._size)

    def _decode(self, content: bytes | str) -> np.ndarray | str:
        return content if isinstance(content, str) else decode(content, self._size)

    def _held_out(self) -> list[tuple[str, int]]:
        if not (self._folder / self.HELD_OUT).is_file():
            return []
        with _open_tar(self._folder / self.HELD_OUT) as tar:
            files = sorted(_members(tar))
        ids = _held_out_classes(self._folder / self.DEVKIT)
        if len(ids) != len(files):
            raise UserError(f"images: {self.HELD_OUT} has {len(files)} images, but the devkit {len(ids)} labels")
        strange = sorted(set(ids) - set(self.class_names))
        if strange:
            raise UserError(f"images: {self.HELD_OUT} has classes that {self._file} has not: {', '.join(strange[:5])}")
        return [(f"val/{file}", self.class_names.index(name)) for file, name in zip(files, ids, strict=True)]

    @contextlib.contextmanager
    def _inner(self, outer: tarfile.TarFile, name: str) -> Iterator[tarfile.TarFile]:
        file = outer.extractfile(self._members[name])
        with _whole(f"{name}.tar inside {self._file}"), tarfile.open(fileobj=file, mode="r:") as inner:
            yield inner


@contextlib.contextmanager
def _open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    with _whole(path), tarfile.open(path, "r:") as tar:
        yield tar


@contextlib.contextmanager
def _whole(name: Path | str) -> Iterator[None]:
    """Turn what is raised while an archive is read into one line with its name."""
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise UserError(f"images: {name} is no whole tar file ({reason_of(error)})") from None


def _members(tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """Regular files by name. Raises TarError where the list ends before the archive does: tarfile takes a cut or a
    zeroed header for the end.
    """
    members = {member.name: member for member in tar if member.isfile()}
    file = tar.fileobj
    assert file is not None
    file.seek(tar.offset)
    end = file.read(LONGEST_END + 1)
    if not tarfile.BLOCKSIZE <= len(end) <= LONGEST_END or end.strip(b"\0"):
        raise tarfile.ReadError(f"its list ends after {len(members)} members, the file does not")
    return members


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | str:
    """A member's content, or why it is not read."""
    if member.size > MAX_BYTES:
        return f"{member.size:,} bytes, expected at most {MAX_BYTES:,}"
    file = tar.extractfile(member)
    assert file is not None  # only regular files are listed
    return file.read()


def _held_out_classes(devkit: Path) -> list[str]:
    """WordNet id of each held-out image in order: the devkit's label file, through its table of synsets."""
    from scipy.io import loadmat

    try:
        with tarfile.open(devkit, "r:gz") as tar:
            members = {Path(member.name).name: member for member in tar if member.isfile()}
            table, labels = (tar.extractfile(members[name]) or io.BytesIO() for name in _DEVKIT_FILES)
            synsets = loadmat(io.BytesIO(table.read()), squeeze_me=True)["synsets"]
            numbers = [int(label) for label in labels.read().split()]
        names = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        return [names[number] for number in numbers]
    except Exception as error:  # a damaged archive or table raises anything: EOFError, zlib.error, KeyError, IndexError
        reason = reason_of(error)
    raise UserError(f"images: {devkit} is needed for the labels of the held-out images, and is not whole ({reason})")
