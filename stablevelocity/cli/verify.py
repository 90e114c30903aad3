"""`stablevelocity verify`: every kept file of a study against its recorded checksum, and the tables made again."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from stablevelocity.errors import UserError
from stablevelocity.files import read_json, sha256
from stablevelocity.records import SEAL, read_record, record_paths, seal_checksum
from stablevelocity.reporting.trace import PROVENANCE
from stablevelocity.study import Study, load_study


def differences(results: Path) -> Iterator[str]:
    """One line for each file that is not what was recorded, and each cell that is not what the metrics give.

    A copy (`stablevelocity keep`) has the checksums of its files in one. Its tables are made again where it holds what
    they read.
    """
    is_copy = (results / PROVENANCE).exists()
    if is_copy:
        yield from _of_copy(results / PROVENANCE)
    else:
        yield from _of_records(results)
        yield from _of_seal(results)
        yield from _of_checkpoints(results)
    try:
        study = load_study(results / "study.json")
    except UserError as error:
        yield str(error)
    else:
        yield from _of_derived(study, results, is_copy)


def _of_copy(said_by: Path) -> Iterator[str]:
    try:
        checksums = read_json(said_by, "sha256")["sha256"]
    except UserError as error:
        yield str(error)
        return
    for name, checksum in checksums.items() if isinstance(checksums, dict) else [(said_by.name, "")]:
        yield from _of_file(said_by.parent / name, checksum, said_by)


def _of_records(results: Path) -> Iterator[str]:
    for file in record_paths(results, checkpoints=True):
        try:
            record = read_record(file)
        except UserError as error:
            yield str(error)
            continue
        for path, state in record.outputs.items():
            yield from _of_file(path, state["sha256"], record.path)


def _of_seal(results: Path) -> Iterator[str]:
    seal = results / SEAL
    if not seal.exists():
        yield f"{seal}: is missing; the workflow writes it when all is done"
        return
    try:
        content = read_json(seal, "files", "sha256")
    except UserError as error:
        yield str(error)
        return
    files = content["files"]
    states = files.values() if isinstance(files, dict) else [None]
    whole = all(isinstance(state, dict) and "sha256" in state for state in states)
    if not whole or content["sha256"] != seal_checksum(files):
        yield f"{seal}: differs from its own checksum"
        return
    for name, state in files.items():
        yield from _of_file(results / name, state["sha256"], seal)


def _of_file(path: Path, checksum: str, said_by: Path) -> Iterator[str]:
    if not path.is_file():
        yield f"{path}: is missing; {said_by} has its checksum"
    elif sha256(path) != checksum:
        yield f"{path}: differs from its checksum in {said_by}"


def _of_checkpoints(results: Path) -> Iterator[str]:
    from stablevelocity.models.weight_files import load_tensors

    for path in sorted(results.glob(f"runs/*/checkpoints/*/step-{'[0-9]' * 8}.safetensors")):
        try:
            load_tensors(path, checksum=True)
        except UserError as error:
            yield str(error)


def _of_derived(study: Study, results: Path, is_copy: bool) -> Iterator[str]:
    """Tables and claims, made again from the metrics as they lie there."""
    from stablevelocity.reporting import registry
    from stablevelocity.reporting.make import make_claims, make_table
    from stablevelocity.study.layout import Layout

    layout = Layout(str(results))
    with tempfile.TemporaryDirectory() as folder:
        for name, table in registry.tables(study).items():
            if is_copy and not all((results / file).exists() for file in table.inputs(study)):
                continue
            kept, again = Path(layout.table(name)), Path(folder) / f"{name}.csv"
            try:
                make_table(study, results, name, again)
                yield from _of_cells(kept, again)
            except Exception as error:  # of metrics that are damaged
                yield f"{kept}: cannot be made again ({type(error).__name__}: {error})"
        kept, again = Path(layout.claims), Path(folder) / "claims.json"
        try:
            make_claims(study, results, again)
            if json.loads(kept.read_text()) != json.loads(again.read_text()):
                yield f"{kept}: the metrics give other claims"
        except Exception as error:
            yield f"{kept}: cannot be made again ({type(error).__name__}: {error})"


def _of_cells(kept: Path, again: Path) -> Iterator[str]:
    if kept.read_bytes() == again.read_bytes():
        return
    now, then = (pd.read_csv(file, dtype=str, keep_default_na=False) for file in (again, kept))
    if list(now) != list(then) or len(now) != len(then):
        yield f"{kept}: has other rows or columns than the metrics give"
        return
    for row, column in zip(*(now != then).to_numpy().nonzero(), strict=True):
        given, name = now.iat[row, column], now.columns[column]
        yield f"{kept}: row {row + 1}, {name}: {then.iat[row, column]}; the metrics give {given}"
