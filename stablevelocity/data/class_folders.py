"""ImageNet as it is handed out: class folders, or the official tar of tars read in place."""

import contextlib
import io
import re
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from stablevelocity.data.decoding import Loaded, collect, decode, read_regular, visible
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
    """`train/<class>/<image>` and `val/<class>/<image>`; classes and files in sorted order.

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
                entries += [(f"{root.name}/{name}/{file.name}", label) for file in visible(root / name)]
        return entries

    def load(self, keys: Sequence[str]) -> Loaded:
        with ThreadPoolExecutor(THREADS) as pool:
            return collect(keys, list(pool.map(self._read, keys)), self._size)

    def _read(self, key: str) -> np.ndarray | str:
        try:
            return decode(read_regular(self._path / key), self._size)
        except OSError as error:
            return str(error.strerror)


def _folders(path: Path) -> list[str]:
    return [entry.name for entry in visible(path) if entry.is_dir()]


class ImageNetTar:
    """The official `ILSVRC2012_img_train.tar`: one tar per class inside, read in place without unpacking.

    Beside it, for the held-out split, `ILSVRC2012_img_val.tar` and the labels in `ILSVRC2012_devkit_t12.tar.gz`.
    Listing reads one header per image (1,281,167 of them), so list once and keep the list; `load` reads only
    the headers of the classes that it is asked for.
    """

    FILE = "ILSVRC2012_img_train.tar"
    HELD_OUT = "ILSVRC2012_img_val.tar"
    DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"

    def __init__(self, path: Path, *, size: int) -> None:
        self._folder = path
        self._file = path / self.FILE
        self._size = size
        with _open_tar(self._file) as outer:
            self._members = {Path(member.name).stem: member for member in outer if member.isfile()}
        self.class_names = sorted(self._members)
        check_class_names(self.class_names, self._file)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def index(self, split: Split) -> list[tuple[str, int]]:
        if split == "heldout":
            return self._held_out()
        entries = []
        with _open_tar(self._file) as outer:
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
        with ThreadPoolExecutor(THREADS) as pool, contextlib.ExitStack() as stack:
            outer = stack.enter_context(_open_tar(self._file))
            for name, places in by_class.items():
                with _open_tar(self._folder / self.HELD_OUT) if name == "val" else self._inner(outer, name) as tar:
                    members = {member.name: member for member in tar}
                    contents = [_content(tar, members[keys[k].partition("/")[2]]) for k in places]
                for k, result in zip(places, pool.map(partial(decode, size=self._size), contents), strict=True):
                    results[k] = result
        return collect(keys, results, self._size)

    def _held_out(self) -> list[tuple[str, int]]:
        if not (self._folder / self.HELD_OUT).is_file():
            return []
        with _open_tar(self._folder / self.HELD_OUT) as tar:
            files = sorted(member.name for member in tar if member.isfile())
        ids = _held_out_classes(self._folder / self.DEVKIT)
        if len(ids) != len(files):
            raise UserError(f"images: {self.HELD_OUT} has {len(files)} images, but the devkit {len(ids)} labels")
        return [(f"val/{file}", self.class_names.index(name)) for file, name in zip(files, ids, strict=True)]

    def _inner(self, outer: tarfile.TarFile, name: str) -> tarfile.TarFile:
        try:
            return tarfile.open(fileobj=outer.extractfile(self._members[name]), mode="r:")
        except tarfile.TarError as error:
            raise UserError(f"images: {name}.tar inside {self._file} is no whole tar file ({error})") from None


def _open_tar(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except tarfile.TarError as error:
        raise UserError(f"images: {path} is no whole tar file ({error})") from None


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # only regular files are listed
    return file.read()


def _held_out_classes(devkit: Path) -> list[str]:
    """WordNet id of each held-out image in order: the devkit's label file, through its table of synsets."""
    from scipy.io import loadmat

    try:
        with tarfile.open(devkit, "r:gz") as tar:
            members = {Path(member.name).name: member for member in tar if member.isfile()}
            table = loadmat(io.BytesIO(_content(tar, members["meta.mat"])), squeeze_me=True)["synsets"]
            labels = _content(tar, members["ILSVRC2012_validation_ground_truth.txt"]).decode().split()
    except (OSError, KeyError, tarfile.TarError) as error:
        raise UserError(f"images: {devkit} is needed for the labels of the held-out images ({error})") from None
    names = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in table}
    return [names[int(label)] for label in labels]
