"""What lies beside the results of a study: which settings, code and files each was made from (`provenance.py`).

Snakemake's own memory is a folder that may be deleted, and the times of files change when they are copied. The records
are neither: from them the workflow knows what must be made again (docs/running.md).
"""

import contextlib
import functools
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from stablevelocity.errors import UserError
from stablevelocity.files import read_json, sha256, write_json
from stablevelocity.progress import log
from stablevelocity.provenance import SUFFIX, file_state

SEAL = "checksums.json"
UNSEALED = {SEAL, "lock"}
CHECKPOINT = re.compile(r"checkpoints/[^/]+/step-\d{8}\.safetensors$")


@dataclass
class _State:
    sha256: str
    bytes: int
    mtime_ns: int


@dataclass
class _Check:
    code: str
    by: str


@dataclass
class _Facts:
    command: list[str]
    settings: str
    code: str
    verified: list[_Check]
    inputs: dict[str, str]
    outputs: dict[str, _State]


@dataclass(frozen=True)
class Record:
    """The record of one result: a file or some that were made together."""

    path: Path
    facts: dict[str, Any]

    @property
    def outputs(self) -> dict[Path, dict[str, Any]]:
        """What each file was when it was made."""
        return {self.locate(name): state for name, state in self.facts["outputs"].items()}

    @property
    def inputs(self) -> dict[Path, str]:
        """Checksum of each file that was read."""
        return {self.locate(name): checksum for name, checksum in self.facts["inputs"].items()}

    @property
    def first(self) -> Path:
        """The file that the record lies beside."""
        return self.path.with_name(self.path.name.removesuffix(SUFFIX))

    @property
    def code(self) -> str:
        return self.facts["code"]

    def verified_under(self, code: str) -> bool:
        return any(check["code"] == code for check in self.facts["verified"])

    def locate(self, name: str) -> Path:
        return Path(os.path.normpath(self.path.parent / name))

    def add_check(self, **check: Any) -> None:
        """Note that the result was verified: under which code, and by what."""
        others = [one for one in self.facts["verified"] if one["code"] != check["code"]]
        write_json(self.path, {**self.facts, "verified": [*others, check]})


def read_records(results: Path | str, *, checkpoints: bool = False) -> list[Record]:
    """Records of all results below a folder, by path; without those of the copies that runs keep of their results.

    Raises UserError for one that cannot be read.
    """
    return [read_record(path) for path in record_paths(results, checkpoints=checkpoints)]


def record_paths(results: Path | str, *, checkpoints: bool = False) -> list[Path]:
    """Paths of the records below a folder, see `read_records`."""
    paths = []
    for folder, folders, names in os.walk(results):
        if not checkpoints and "checkpoints" in folders:
            folders.remove("checkpoints")
        paths += [Path(folder) / name for name in names if name.endswith(SUFFIX)]
    return sorted(paths)


def read_record(path: Path) -> Record:
    facts = read_json(path, "settings", "code", "verified", "inputs", "outputs", "command")
    if not conforms(facts, _Facts):
        raise UserError(f"{path}: is damaged; delete it with the file beside it to make that again")
    return Record(path, facts)


def conforms(value: Any, kind: Any) -> bool:
    """Whether what a JSON file holds has the types of `kind`, such as a dataclass's, all through; it may hold more."""
    try:
        _adapter(kind).validate_python(value)
    except ValueError:
        return False
    return True


@functools.cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)


def restore_times(records: Iterable[Record]) -> None:
    """Give files whose content is the recorded one their recorded times back: copying changed them."""
    changed = [
        (path, state)
        for record in records
        for path, state in record.outputs.items()
        if path.exists() and path.stat().st_mtime_ns != state["mtime_ns"] and path.stat().st_size == state["bytes"]
    ]
    if len(changed) > 1:
        size = sum(state["bytes"] for _, state in changed) / 1e9
        log.info(f"{len(changed)} files ({size:.3g} GB) were copied or touched; their checksums are compared")
    for path, state in changed:
        if sha256(path) == state["sha256"]:
            with contextlib.suppress(OSError):  # of another user, or on a disk that is only read
                os.utime(path, ns=(state["mtime_ns"], state["mtime_ns"]))


def lost(records: Iterable[Record]) -> dict[str, str]:
    """Checksums of the files that are made again as one of them is missing, where what was made from them had the same:
    it need not be made again, as the same bytes come out.
    """
    records = list(records)
    read: dict[Path, set[str]] = {}
    for record in records:
        for path, checksum in record.inputs.items():
            read.setdefault(path, set()).add(checksum)
    return {
        str(path): state["sha256"]
        for record in records
        if not all(path.exists() for path in record.outputs)
        and all(read.get(path, set()) <= {state["sha256"]} for path, state in record.outputs.items())
        for path, state in record.outputs.items()
    }


def seal(results: Path) -> None:
    """Note the checksums of all files of a study that no record has, the records included, in checksums.json.

    Not of checkpoints, which carry their own. Files that look the same as at the last time are not read again.
    """
    recorded = {path for record in read_records(results, checkpoints=True) for path in record.outputs}
    before = read_json(results / SEAL)["files"] if (results / SEAL).exists() else {}
    files = {}
    for path in sorted(path for path in results.rglob("*") if path.is_file() and path not in recorded):
        name, state = str(path.relative_to(results)), path.stat()
        if name in UNSEALED or CHECKPOINT.search(name):
            continue
        same = {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns}
        files[name] = before[name] if before.get(name, {}).items() >= same.items() else file_state(path)
    write_json(results / SEAL, {"files": files, "sha256": seal_checksum(files)})


def seal_checksum(files: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def code_table(results: Path | str) -> list[dict[str, Any]]:
    """Rows for a report: `results` (a folder), `count`, `code` that made them, and how they were `verified`."""
    rows = Counter()
    for record in read_records(results):
        folder = record.first.relative_to(results).parts[:-1][:2]
        checks = [f"{check['by']} under code {check['code']}" for check in record.facts["verified"]]
        rows["/".join(folder) or ".", record.code, "; ".join(checks)] += 1
    return [
        {"results": folder, "count": count, "code": code, "verified": verified}
        for (folder, code, verified), count in sorted(rows.items())
    ]


def codes_line(results: str, older: list[tuple[Record, str]]) -> str | None:
    """One line about the results that stay although the code has changed: (record, today's code) of each."""
    if not older:
        return None
    proven = sum(record.verified_under(now) for record, now in older)
    codes = Counter(record.code for record, _ in older)
    counts = ", ".join(f"{count} by {code}" for code, count in codes.most_common())
    return (
        f"{results}: {len(older)} results were made by other code ({counts}) and stay, {proven} of them verified; "
        f"`stablevelocity revalidate {results}` verifies them, `--config remake=code` makes them again"
    )
