"""ImageNet as it is handed out: class folders, or the official tar of tars read in place."""

import re
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from stablevelocity.data.decoding import Loaded, collect, decode
from stablevelocity.errors import UserError

Split = Literal["train", "heldout"]
THREADS = 4  # decoders release the interpreter lock
_WORDNET_ID = re.compile(r"n\d{8}")


def check_class_names(names: list[str], where: Path) -> None:
    """Refuse a wrong folder among WordNet ids: every label after it would be shifted by one.

    Folders with names of any other kind (no WordNet id among them) are a data set of their own.
    """
    if not names:
        raise UserError(f"images: no class folder in {where}; expected {where.name}/<class>/<image>")
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


class ClassFolders:
    """`train/<class>/<image>` and, if there, `val/<class>/<image>`; classes and files in sorted order.

    Every file of a class folder is listed (hidden ones apart): one that is no image is a problem to report.
    """

    def __init__(self, path: Path, *, size: int) -> None:
        if not (path / "train").is_dir():
            raise UserError(
                f"images: {path} has neither train/<class>/<image> nor {ImageNetTar.FILE}; expected one of them"
            )
        self._path = path
        self._size = size
        self.class_names = _folders(path / "train")
        check_class_names(self.class_names, path / "train")
        strange = set(_folders(path / "val")) - set(self.class_names) if (path / "val").is_dir() else set()
        if strange:
            raise UserError(f"images: {path / 'val'} has class folder(s) that train has not: {sorted(strange)[:5]}")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def index(self, split: Split) -> list[tuple[str, int]]:
        root = self._path / ("train" if split == "train" else "val")
        entries = []
        for label, name in enumerate(self.class_names):
            if (root / name).is_dir():
                files = sorted(file.name for file in (root / name).iterdir() if not file.name.startswith("."))
                entries += [(f"{root.name}/{name}/{file}", label) for file in files]
        return entries

    def load(self, keys: Sequence[str]) -> Loaded:
        with ThreadPoolExecutor(THREADS) as pool:
            return collect(keys, list(pool.map(self._read, keys)), self._size)

    def _read(self, key: str) -> np.ndarray | str:
        try:
            return decode((self._path / key).read_bytes(), self._size)
        except OSError as error:
            return str(error.strerror)


def _folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


class ImageNetTar:
    """The official `ILSVRC2012_img_train.tar`: one tar per class inside, read in place without unpacking.

    There is no held-out split. Listing reads one header per image (1,281,167 of them), so list once and keep
    the list; `load` reads only the headers of the classes that it is asked for.
    """

    FILE = "ILSVRC2012_img_train.tar"

    def __init__(self, path: Path, *, size: int) -> None:
        self._file = path / self.FILE
        self._size = size
        try:
            with tarfile.open(self._file, "r:") as outer:
                members = {Path(member.name).stem: member for member in outer if member.isfile()}
        except tarfile.TarError as error:
            raise UserError(f"images: {self._file} is no whole tar file ({error})") from None
        self._members = members
        self.class_names = sorted(members)
        check_class_names(self.class_names, self._file)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def index(self, split: Split) -> list[tuple[str, int]]:
        if split == "heldout":
            return []
        entries = []
        with tarfile.open(self._file, "r:") as outer:
            for label, name in enumerate(self.class_names):
                with self._inner(outer, name) as inner:
                    files = sorted(member.name for member in inner if member.isfile())
                entries += [(f"{name}/{file}", label) for file in files]
        return entries

    def load(self, keys: Sequence[str]) -> Loaded:
        results: list[np.ndarray | str] = [""] * len(keys)
        by_class: dict[str, list[int]] = {}
        for k, key in enumerate(keys):
            by_class.setdefault(key.partition("/")[0], []).append(k)
        with tarfile.open(self._file, "r:") as outer, ThreadPoolExecutor(THREADS) as pool:
            for name, places in by_class.items():
                with self._inner(outer, name) as inner:
                    members = {member.name: member for member in inner}
                    contents = [_content(inner, members[keys[k].partition("/")[2]]) for k in places]
                for k, result in zip(places, pool.map(partial(decode, size=self._size), contents), strict=True):
                    results[k] = result
        return collect(keys, results, self._size)

    def _inner(self, outer: tarfile.TarFile, name: str) -> tarfile.TarFile:
        try:
            return tarfile.open(fileobj=outer.extractfile(self._members[name]), mode="r:")
        except tarfile.TarError as error:
            raise UserError(f"images: {name}.tar inside {self._file} is no whole tar file ({error})") from None


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # only regular files are listed
    return file.read()
