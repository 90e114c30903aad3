"""The way back from a number of a table: which jobs made it, from which files, by which commands.

Every job leaves a record beside its first result (`provenance.py`). Together they are a graph from the page down to the
images; a copy or an archive holds it as one file, records.json.gz.
"""

import functools
import gzip
import json
import os
import re
import shlex
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write
from stablevelocity.records import Record, read_records
from stablevelocity.reporting import registry
from stablevelocity.reporting.results import DataFrame

RECORDS = "records.json.gz"
PROVENANCE = "provenance.json"
"""Of a copy: what it is of (`reference.py`)."""
LONGEST = 300
"""Characters of settings in text: a table's are the whole study."""


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


class Jobs(dict[str, Job]):
    """All jobs of a study by their ids."""

    @functools.cached_property
    def made_by(self) -> dict[str, Job]:
        return {file: job for job in self.values() for file in job.outputs}

    def chain(self, files: Iterable[str]) -> list[Job]:
        """The jobs that made these files, each before those that made its inputs: read backwards, an order to run."""
        seen: set[str] = set()
        found: list[Job] = []

        def visit(file: str) -> None:
            job = self.made_by.get(file)
            if job is not None and job.id not in seen:
                seen.add(job.id)
                for name in job.inputs:
                    visit(name)
                found.append(job)  # behind all that it needs

        for file in files:
            visit(file)
        return found[::-1]

    def write(self, path: Path) -> None:
        """A tenth of their size: the same words in hundreds of jobs. The same jobs give the same bytes."""
        text = json.dumps([asdict(job) for job in self.values()])
        with atomic_write(path) as temporary:
            temporary.write_bytes(gzip.compress(text.encode(), mtime=0))


@functools.cache
def read_jobs(folder: Path) -> Jobs:
    """From the records beside the results, or from those of a copy; none of an older copy."""
    if (folder / PROVENANCE).exists():
        kept = folder / RECORDS
        try:
            jobs = TypeAdapter(list[Job]).validate_json(gzip.decompress(kept.read_bytes())) if kept.exists() else []
        except (gzip.BadGzipFile, EOFError, zlib.error, ValidationError):
            raise UserError(f"{kept}: is no list of jobs; expected what `stablevelocity keep` wrote") from None
    else:
        jobs = [_job(folder, record) for record in read_records(folder)]
    return Jobs({job.id: job for job in jobs})


def _job(folder: Path, record: Record) -> Job:
    def inside(path: Path) -> str:
        return str(path) if path.is_absolute() and not folder.is_absolute() else os.path.relpath(path, folder)

    facts = record.facts
    words = [Path(facts["command"][0]).name, *facts["command"][1:]]
    while len(words) > 1 and words[1].startswith("--"):  # what the workflow adds before the verb
        del words[1:3]
    return Job(
        id=inside(record.first),
        verb=words[1] if len(words) > 1 else words[0],
        command=shlex.join(words),
        inputs={inside(path): checksum for path, checksum in record.inputs.items()},
        outputs={inside(path): state["sha256"] for path, state in record.outputs.items()},
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
                lines += ["", job.id + (f" (and {count - 1} more like it)" if count > 1 else ""), *_told(job)]
        made = Counter(f"{job.host}; " + ", ".join(map(" ".join, job.versions.items())) for job in self.jobs)
        return [*lines, "", *(f"{count} jobs on {where}" for where, count in made.items())]


def _kind(job: Job) -> tuple[str, ...]:
    return job.verb, re.sub(r"\d", "#", job.id), job.code, job.host


def _told(job: Job) -> list[str]:
    checks = ["; verified: " + ", ".join(f"{key} {value}" for key, value in check.items()) for check in job.verified]
    settings = job.settings if len(job.settings) <= LONGEST else f"{job.settings[:LONGEST]}… (whole with --json)"
    files = [("made", job.outputs), ("from", job.inputs)]
    return [
        f"  {job.command}",
        f"  {job.made}, code {job.code}{''.join(checks)}",
        *([f"  settings {settings}"] if settings else []),
        *(f"  {way} {name}  sha256 {checksum}" for way, of in files for name, checksum in of.items()),
    ]


def trace(folder: Path, table: str, row: DataFrame, column: str) -> Trace:
    """The chain behind the number in `column` of `row`, a row of the study's table `table`."""
    jobs = read_jobs(folder)
    own = jobs.made_by.get(f"tables/{table}.csv")
    if own is None:
        raise UserError(
            f"{folder}: no record of the job that made tables/{table}.csv; expected a study's folder, or its copy"
        )
    files = sources(folder, own, row, column)
    named = ", ".join(str(row[key]) for key in registry.table_keys()[table])
    return Trace(table, named, column, row[column], files, [own, *jobs.chain(files)])


def sources(folder: Path, own: Job, row: DataFrame, column: str) -> list[str]:
    """Of the inputs of a table's job with most of the columns that name the row, those that hold its values."""
    if column.startswith("published"):
        return [name for name in own.inputs if "config/published" in name]
    named = {key: row[key] for key in registry.table_keys()[Path(own.id).stem] if key in row}
    if "against" in row:
        named = {**named, "arm": (row["arm"], row["against"])}
    if "_from_" in column:  # a difference: its interval takes the spread of all arms
        named = {key: value for key, value in named.items() if key != "arm"}
    matches = {name: _match(folder / name, named) for name in own.inputs if "config/published" not in name}
    most = max(map(len, matches.values()), default=0)
    return [name for name, match in matches.items() if len(match) == most and all(match)]


@functools.cache
def _values(file: Path) -> dict[str, set[str]]:
    if file.suffix != ".csv" or not file.exists():
        return {}
    return {str(name): set(map(_text, values.unique())) for name, values in pd.read_csv(file).items()}


def _match(file: Path, named: dict[str, Any]) -> list[bool]:
    """For each of these columns that a file has: whether it holds the value there."""
    values = _values(file)
    return [any(_text(one) in values[key] for one in _several(value)) for key, value in named.items() if key in values]


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
