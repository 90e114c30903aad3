"""Arrays on disk: safetensors shards and a manifest with counts, shapes and checksums.

A shard is one file of named arrays of equal length. The manifest of a set of shards is written last, from the
files as they lie on disk; opening a set checks every file against it, so a half-copied or damaged shard is never used.
"""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stablevelocity.errors import UserError
from stablevelocity.files import DamagedShard, atomic_write, read_json, sha256, write_json

DTYPES = {"U8": "u1", "F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8"}  # in safetensors' order
DTYPE_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
Layout = dict[str, tuple[tuple[int, ...], np.dtype]]  # shape and type by name


def write_shard(path: Path | str, arrays: dict[str, np.ndarray], info: dict[str, str] | None = None) -> None:
    """Write named arrays (n, ...) of equal length as one shard; `info` is kept in the file's header."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"arrays of one shard differ in length: {lengths}")
    write_arrays(path, arrays, info)


def write_arrays(path: Path | str, arrays: dict[str, np.ndarray], info: dict[str, str] | None = None) -> None:
    """Write named arrays as one safetensors file.

    The same arrays and `info` give the same bytes; safetensors' own writer puts the keys of `info` in a random order.
    """
    layout = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(_header(layout, info)[0])
        for name in _stored_order(layout):
            file.write(np.ascontiguousarray(arrays[name]).data)


@contextlib.contextmanager
def new_shard(path: Path | str, layout: Layout) -> Iterator[dict[str, np.memmap]]:
    """The arrays of a new shard, by shape and type, mapped to disk to be filled; the file appears when all are.

    The file is the one that `write_shard` writes of the same arrays.
    """
    header, size = _header(layout)
    with atomic_write(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(header)
            file.flush()
            # Disk space is taken now: on a full disk this is an error, a write to mapped memory would be a crash.
            os.posix_fallocate(file.fileno(), 0, len(header) + size)
        arrays = read_shard(temporary, mode="r+")
        yield arrays
        for array in arrays.values():
            array.flush()


def _stored_order(layout: Layout) -> list[str]:
    """As safetensors' own writer: the widest types first, then by name."""
    order = list(DTYPES)
    return sorted(layout, key=lambda name: (-order.index(DTYPE_NAMES[layout[name][1]]), name))


def _header(layout: Layout, info: dict[str, str] | None = None) -> tuple[bytes, int]:
    """(what a safetensors file begins with, bytes of its data): length, JSON padded to 8 bytes with sorted `info`."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(info.items()))} if info else {}
    offset = 0
    for name in _stored_order(layout):
        shape, dtype = layout[name]
        end = offset + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, offset


def read_shard(path: Path | str, *names: str, mode: Literal["r", "r+"] = "r") -> dict[str, np.memmap]:
    """The arrays of a shard, mapped from disk and read when touched (with "r+" also written).

    Raises UserError when the file is no whole shard, or lacks one of `names`.
    """
    # safetensors' own reader copies whole arrays; its layout is plain: 8 bytes of length, a JSON header, the data.
    header, start = _read_header(path)
    header.pop("__metadata__", None)
    missing = [name for name in names if name not in header]
    if missing:
        raise UserError(f"{path}: this shard has no {missing[0]!r}; it has {', '.join(list(header)[:5])}")
    try:
        places = sorted(entry["data_offsets"] for entry in header.values())
        ends = [0, *(end for _, end in places)]  # each array begins where the one before it ends
        if not places or [begin for begin, _ in places] != ends[:-1] or start + ends[-1] != Path(path).stat().st_size:
            raise ValueError(f"expected {start + ends[-1]} bytes, without gaps")
        for name, entry in header.items():
            size = math.prod(entry["shape"]) * np.dtype(DTYPES[entry["dtype"]]).itemsize
            if entry["data_offsets"][1] - entry["data_offsets"][0] != size:
                raise ValueError(f"{name} has other bytes than its shape says")
        return {
            name: np.memmap(path, DTYPES[entry["dtype"]], mode, start + entry["data_offsets"][0], tuple(entry["shape"]))
            for name, entry in header.items()
        }
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise UserError(f"{path}: is no whole shard ({type(error).__name__}: {error})") from None


def shard_info(path: Path | str) -> dict[str, str]:
    """What `write_shard` was given as `info`."""
    return _read_header(path)[0].get("__metadata__", {})


def is_done(path: Path | str, info: dict[str, str]) -> bool:
    """Whether a whole shard with this `info` is there, from an earlier, stopped call."""
    try:
        return shard_info(path) == info and bool(read_shard(path))
    except (OSError, UserError):
        return False


def _read_header(path: Path | str) -> tuple[dict[str, Any], int]:
    """(JSON header of a safetensors file, where its data begin)"""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            if length > os.fstat(file.fileno()).st_size:
                raise ValueError("it ends within its header")
            return dict(json.loads(file.read(length))), 8 + length
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{path}: is no shard in safetensors ({error})") from None


def write_manifest(path: Path | str, shards: list[Path], **info: Any) -> None:
    """Describe `shards` (in order) in a JSON file beside them, with anything in `info`."""
    entries = []
    for shard in shards:
        count, size = len(next(iter(read_shard(shard).values()))), shard.stat().st_size
        entries.append({"file": shard.name, "count": count, "bytes": size, "sha256": sha256(shard)})
    first = read_shard(shards[0])
    arrays = {name: {"dtype": str(array.dtype), "shape": list(array.shape[1:])} for name, array in first.items()}
    count = sum(entry["count"] for entry in entries)
    write_json(path, {"count": count, "arrays": arrays, **info, "shards": entries})


def random_rows(total: int, count: int, seed: int = 0) -> np.ndarray:
    """At most `count` rows of `total`, drawn without repeats, ascending: data sets are sorted by class."""
    if count >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, count, replace=False))


class ShardSet:
    """A set of shards, opened by its manifest and read by row.

    `manifest` holds what was written about the set. Rows are counted through the shards in their order.

    Raises UserError when the file is no manifest, or lacks one of the arrays `names`, or a shard is missing or does not
    lie beside it; DamagedShard when one differs from its checksum. Nothing is changed on disk; see `damaged_put_aside`.
    Without `checksums` only presence and size are checked: reading hundreds of gigabytes at every start would take
    minutes.
    """

    def __init__(self, manifest: Path | str, *names: str, checksums: bool = True):
        self.manifest = read_json(manifest, "arrays", "shards")
        try:
            arrays, shards = self.manifest["arrays"].items(), self.manifest["shards"]
            layout = {name: (np.dtype(spec["dtype"]), *map(int, spec["shape"])) for name, spec in arrays}
            counts = [int(entry["count"]) for entry in shards]
            sums = [(int(entry["bytes"]), entry["sha256"]) for entry in shards]
            file_names = [entry["file"] for entry in shards]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{manifest}: is no manifest of shards ({type(error).__name__}: {error})") from None
        missing = [name for name in names if name not in layout]
        if missing or not file_names:
            raise UserError(f"{manifest}: its shards hold no `{missing[0] if missing else 'arrays'}`")
        self.files = [Path(manifest).parent / _bare_name(name, manifest) for name in file_names]
        for file, (size, digest) in zip(self.files, sums, strict=True):
            if not file.exists():
                raise UserError(f"{file}: shard is missing; run the workflow again to make it")
            whole = file.is_file() and file.stat().st_size == size
            if not whole or (checksums and sha256(file) != digest):
                raise DamagedShard(file, f"differs from its checksum in {manifest}")
        self._shards = [read_shard(file, *layout) for file in self.files]
        for file, shard, count in zip(self.files, self._shards, counts, strict=True):
            given = {name: (shard[name].dtype, *shard[name].shape[1:]) for name in layout}
            if given != layout or any(len(shard[name]) != count for name in layout):
                raise UserError(f"{file}: its arrays are not those of {manifest}")
        if len(set(self.files)) < len(file_names) or self.manifest.get("count", sum(counts)) != sum(counts):
            raise UserError(f"{manifest}: lists a shard twice, or its count is not the sum of its shards'")
        self._starts = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, name: str, indices: np.ndarray) -> np.ndarray:
        """Rows of array `name` at `indices` (any order, repeats allowed), as one array in memory."""
        spec = self.manifest["arrays"][name]
        rows = np.empty((len(indices), *spec["shape"]), spec["dtype"])
        shard_of = np.searchsorted(self._starts, indices, side="right") - 1
        for shard in np.unique(shard_of):
            here = shard_of == shard
            rows[here] = self._shards[shard][name][indices[here] - self._starts[shard]]
        return rows

    def all(self, name: str) -> np.ndarray:
        """Array `name` of the whole set, in memory."""
        return np.concatenate([shard[name] for shard in self._shards])


def _bare_name(name: Any, manifest: Path | str) -> str:
    """The name of a shard in a manifest. Raises UserError when it leads elsewhere than beside the manifest."""
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
        raise UserError(f"{manifest}: the shard {name!r} is no bare file name; shards lie beside their manifest")
    return name
