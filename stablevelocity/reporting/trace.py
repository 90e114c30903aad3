"""The way back from a number of a table: which jobs made it, from which files, by which commands.

Every job leaves a record beside its first result (`provenance.py`). Together they are a graph from the page down to the
images; a copy or an archive holds it as one file, records.json.
"""

import functools
import json
import os
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stablevelocity.errors import UserError
from stablevelocity.files import read_json
from stablevelocity.reporting import registry
from stablevelocity.reporting.results import DataFrame

SUFFIX = ".provenance.json"
RECORDS = "records.json"


@dataclass(frozen=True)
class Job:
    """What one command made: paths are relative to results/<study>, `inputs` and `outputs` give checksums by path.

    `id` is its first result. `verified`: under which other code it was proven to come out the same, and by what.
    """

    id: str
    verb: str
    command: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    settings: str
    code: str
    versions: dict[str, str]
    host: str
    made: str
    verified: list[dict[str, Any]]


@dataclass(frozen=True)
class Records:
    """All jobs of a study by their ids."""

    jobs: dict[str, Job]

    @functools.cached_property
    def made_by(self) -> dict[str, Job]:
        return {file: job for job in self.jobs.values() for file in job.outputs}

    def chain(self, files: Iterable[str]) -> list[Job]:
        """The jobs that made these files, each before those that made its inputs: read backwards, an order to run."""
        found: dict[str, Job] = {}

        def visit(file: str) -> None:
            job = self.made_by.get(file)
            if job is not None and job.id not in found:
                found[job.id] = job  # marks it as seen
                for name in job.inputs:
                    visit(name)
                found[job.id] = found.pop(job.id)  # behind all that it needs

        for file in files:
            visit(file)
        return list(found.values())[::-1]

    def as_json(self) -> str:
        return json.dumps([asdict(job) for job in self.jobs.values()], indent=1) + "\n"


@functools.cache
def read_records(folder: Path) -> Records:
    """From the records beside the results, or from records.json of a copy. Raises UserError where there are neither."""
    if (folder / RECORDS).exists():
        return Records({job["id"]: Job(**job) for job in read_json(folder / RECORDS)})
    found = [Path(here) / name for here, _, names in os.walk(folder) for name in names if name.endswith(SUFFIX)]
    jobs = [_job(folder, path, read_json(path)) for path in sorted(found)]
    if not jobs:
        raise UserError(f"{folder}: no record of any job lies there; expected the folder of a study, or its copy")
    return Records({job.id: job for job in jobs})


def _job(folder: Path, path: Path, facts: dict[str, Any]) -> Job:
    def inside(name: str) -> str:
        return name if os.path.isabs(name) else os.path.relpath(path.parent / name, folder)

    words = [Path(facts["command"][0]).name, *facts["command"][1:]]
    while len(words) > 1 and words[1].startswith("--"):  # what the workflow adds before the verb
        del words[1:3]
    return Job(
        id=inside(path.name.removesuffix(SUFFIX)),
        verb=words[1] if len(words) > 1 else words[0],
        command=shlex.join(words),
        inputs={inside(name): checksum for name, checksum in facts["inputs"].items()},
        outputs={inside(name): state["sha256"] for name, state in facts["outputs"].items()},
        **{name: facts[name] for name in ("settings", "code", "versions", "host", "made", "verified")},
    )


@dataclass(frozen=True)
class Trace:
    """A number of a table, the files that it was computed from, and the jobs behind it, its own first.

    `sources` are those of the table's inputs that its row and column speak of.
    """

    table: str
    row: str
    column: str
    value: Any
    sources: list[str]
    jobs: list[Job]

    def as_json(self) -> str:
        value = self.value.item() if hasattr(self.value, "item") else self.value
        return json.dumps({**asdict(self), "value": value}, indent=1)

    def lines(self) -> list[str]:
        """As text; of jobs that differ by a number in their name alone, such as shards, the first stands for all."""
        lines = [
            f"{self.table}, row {self.row}, {self.column} = {self.value}",
            *(f"  from {one}" for one in self.sources),
        ]
        kinds = Counter(_kind(job) for job in self.jobs)
        for job in self.jobs:
            if count := kinds.pop(_kind(job), 0):
                lines += ["", *_told(job, count - 1)]
        return lines


def _kind(job: Job) -> tuple[str, ...]:
    name = "".join("#" if letter.isdigit() else letter for letter in Path(job.id).name)
    return job.verb, str(Path(job.id).parent), name, job.code, job.host


def _told(job: Job, others: int) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in job.versions.items())
    checks = [f"verified under code {check['code']} by {check['by']}" for check in job.verified]
    files = [
        f"  {way} {name}  sha256 {checksum}"
        for way, of in (("made", job.outputs), ("from", job.inputs))
        for name, checksum in of.items()
    ]
    return [
        f"{job.id}" + (f" (and {others} more like it)" if others else ""),
        f"  {job.command}",
        f"  code {job.code}{''.join(f', {check}' for check in checks)}; {job.made}; {job.host}; {versions}",
        f"  settings {job.settings or 'none of its own'}",
        *files,
    ]


def trace(folder: Path, table: str, row: DataFrame, column: str) -> Trace:
    """The chain behind the number in `column` of `row`, a row of the study's table `table`."""
    records = read_records(folder)
    own = records.made_by.get(f"tables/{table}.csv")
    if own is None:
        raise UserError(f"{folder}: no record of the job that made tables/{table}.csv")
    keys = registry.table_keys().get(table, ())
    sources = _sources(folder, own, {key: row[key] for key in keys}, row, column)
    named = ", ".join(str(row[key]) for key in keys)
    return Trace(table, named, column, row[column], sources, [own, *records.chain(sources)])


def _sources(folder: Path, own: Job, named: dict[str, Any], row: DataFrame, column: str) -> list[str]:
    """The inputs that hold what the row is named by; those that hold no such column only where none does."""
    if column.startswith("published"):
        return [name for name in own.inputs if "config/published" in name]
    if "against" in row:
        named = {**named, "arm": (row["arm"], row["against"])}
    if "_from_" in column:  # a difference: its interval takes the spread of all arms
        named = {key: value for key, value in named.items() if key != "arm"}
    shared = {name: _match(folder / name, named) for name in own.inputs if "config/published" not in name}
    chosen = [name for name, match in shared.items() if match]
    return chosen or [name for name, match in shared.items() if match is None]


@functools.cache
def _values(file: Path) -> dict[str, set[str]]:
    if file.suffix != ".csv" or not file.exists():
        return {}
    return {str(name): set(map(_text, values.unique())) for name, values in pd.read_csv(file).items()}


def _match(file: Path, named: dict[str, Any]) -> bool | None:
    """Whether a file has each of these values in its column; None when it has no such column."""
    values = _values(file)
    told = [any(_text(one) in values[key] for one in _several(value)) for key, value in named.items() if key in values]
    return all(told) if told else None


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def find(file: Path, wanted: str, column: str) -> Trace:
    """`trace` of a number by words: `wanted` names a row by its label, method, or values of its key columns.

    Of several such rows the last is taken, as of several training steps. Raises UserError where there is none.
    """
    if file.parent.name != "tables" or not file.exists():
        raise UserError(f"{file}: expected results/<study>/tables/<table>.csv")
    table: DataFrame = pd.read_csv(file)
    keys = registry.table_keys().get(file.stem, ())
    columns = [name for name in (*keys, "label", "method") if name in table]
    words = [word.strip() for word in wanted.split(",")]
    texts = table[columns].map(_text)
    rows = texts[[all(word in set(row) for word in words) or wanted in set(row) for row in texts.to_numpy()]]
    if rows.empty:
        known = "; ".join(texts[list(keys) or columns].agg(", ".join, axis="columns"))
        raise UserError(f"--row {wanted}: no such row in {file}; expected one of: {known}")
    if column not in table:
        raise UserError(f"--column {column}: no such column in {file}; expected one of {', '.join(table)}")
    return trace(file.parent.parent, file.stem, table.loc[rows.index[-1]], column)
