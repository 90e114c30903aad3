"""Folders of results whose files are empty, cut, of another kind or of another version; `verify` names each."""

import contextlib
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

from bad_inputs.case import Case, command
from bad_inputs.study_keys import CONFIG
from stablevelocity.cli.verify import differences
from stablevelocity.provenance import SUFFIX
from stablevelocity.schedulers.tuned import tuned_options
from stablevelocity.study import load_study, study_json

STUDY = study_json(load_study(CONFIG / "smoke.yaml"))
JOBS = gzip.compress(b'["a", {"id": 1}]', mtime=0)
KEYS = ("settings", "code", "verified", "inputs", "outputs", "command")


def record(**changes: object) -> str:
    given: dict[str, object] = {"command": [], "settings": "", "code": "", "verified": [], "inputs": {}, "outputs": {}}
    return json.dumps(given | changes)


A_TABLE = {"a/tables/x.csv": "n,fid\nb,2\n", "b/tables/x.csv": "n,fid\nb,2\n"}
DAMAGED = "is damaged or of another kind"
#: (what is wrong, the files, the words after `stablevelocity`, what the line names)
FILES: list[tuple[str, dict[str, str | bytes], str, str]] = [
    ("an empty table", A_TABLE | {"a/tables/x.csv": ""}, "compare a b", rf"a/tables/x\.csv: {DAMAGED}"),
    (
        "a ragged table",
        A_TABLE | {"b/tables/x.csv": "a,b\n1,2\n1,2,3\n"},
        "compare a b",
        rf"b/tables/x\.csv: {DAMAGED}",
    ),
    ("a table in bytes", A_TABLE | {"b/tables/x.csv": b"\xff\xfe\0"}, "compare a b", rf"b/tables/x\.csv: {DAMAGED}"),
    ("tables without rows", {"a/tables/x.csv": "a\n", "b/tables/x.csv": "a\n"}, "compare a b", "no table with rows"),
    ("other tables", {"a/tables/x.csv": "a\n1\n", "b/tables/y.csv": "a\n1\n"}, "compare a b", "no table with rows"),
    ("a study that is a list", A_TABLE | {"a/study.json": "[]"}, "compare a b", r"a/study\.json: has no 'name'"),
    ("claims that are numbers", {"claims.json": "[1]"}, "summary .", r"claims\.json: is no list of claims"),
    ("claims that are none", {"claims.json": "{}"}, "summary .", r"claims\.json: is no list of claims"),
    ("claims cut", {"claims.json": '[{"verdict'}, "summary .", r"claims\.json: is not whole JSON"),
    (
        "a claim with two verdicts",
        {"claims.json": '[{"verdict": ["open"], "corrected": "open", "headline": true, "line": ""}]'},
        "summary .",
        r"claims\.json: is no list of claims",
    ),
    (
        "jobs that are words",
        {
            "x/study.json": STUDY,
            "x/claims.json": "[]",
            "x/provenance.json": '{"sha256": {}}',
            "x/records.json.gz": JOBS,
        },
        "index .",
        r"records\.json\.gz: is no list of jobs",
    ),
    ("no claims", {}, "summary .", r"claims\.json: no such file"),
    ("claims of a study", {"x/claims.json": "[{}]", "x/study.json": STUDY}, "index .", r"x/claims\.json: is no list"),
    (
        "a copy of lists",
        {"x/study.json": STUDY, "x/provenance.json": "[]"},
        "index .",
        r"provenance\.json: has no 'sha256'",
    ),
    ("a number of no table", {}, "trace no.csv --row a --column b", "expected results/<study>/tables/<table>.csv"),
    ("a number of an empty table", {"s/tables/x.csv": ""}, "trace s/tables/x.csv --row a --column b", DAMAGED),
    (
        "metrics that are words",
        {"runs/a/metrics.csv": "step,loss\nx,1\n"},
        "tensorboard . --output made",
        "line 2 is no",
    ),
    ("metrics cut", {"runs/a/metrics.csv": "step,loss,lr\n1,1\n"}, "tensorboard . --output made", "line 2 is no row"),
    ("metrics without steps", {"runs/a/metrics.csv": "loss\n1\n"}, "tensorboard . --output made", "line 2 is no row"),
    ("tables to be joined", {"a.csv": "", "b.csv": "x\n1\n"}, "join-tables a.csv b.csv --output made/x", DAMAGED),
    (
        "a manifest that waits for its writer",
        {},
        "export-images pipe --png made",
        "pipe: cannot be used; expected a regular",
    ),
    (
        "a manifest without end",
        {},
        "export-images /dev/zero --png made",
        "/dev/zero: cannot be used; expected a regular",
    ),
    ("a pipe as a batch", {}, "score pipe pipe --weights w --output made/x", "pipe: cannot be used"),
    ("a pipe to join", {}, "join-tables pipe --output made/x", "pipe: cannot be used"),
    ("a pipe as output", {}, "schema --output pipe", "pipe: cannot be used"),
    ("a device as output", {}, "schema --output /dev/null", "/dev/null: cannot be used"),
    (
        "a row twice",
        A_TABLE | {"a/tables/x.csv": "n,fid\nb,2\nb,2\n"},
        "compare a b",
        r"a/tables/x\.csv: row 'b' stands",
    ),
    (
        "steps beyond count",
        {"runs/a/metrics.csv": f"step,loss\n{10**30},1\n"},
        "tensorboard . --output made",
        "line 2 is no row",
    ),
    ("a step below 0", {"runs/a/metrics.csv": "step,loss\n-5,1\n"}, "tensorboard . --output made", "line 2 is no row"),
    ("an unfinished study", {"study.json": STUDY}, "keep . made", r"report\.html is missing"),
    ("a folder that is not there", {}, "revalidate no", r"no/study\.json: cannot be read"),
]
#: What `verify` finds beside the records that are whole.
RECORDS: list[tuple[str, dict[str, str], str]] = [
    ("a record of lists", {f"a.csv{SUFFIX}": json.dumps({key: [] for key in KEYS})}, f"a.csv{SUFFIX}: is damaged"),
    ("a record of numbers", {f"a.csv{SUFFIX}": record(outputs={"a.csv": 5})}, f"a.csv{SUFFIX}: is damaged"),
    ("a record checked by a number", {f"a.csv{SUFFIX}": record(verified=[5])}, f"a.csv{SUFFIX}: is damaged"),
    ("a record of code that is none", {f"a.csv{SUFFIX}": record(code={})}, f"a.csv{SUFFIX}: is damaged"),
    ("a record without checksums", {f"a.csv{SUFFIX}": record(outputs={"a.csv": {}})}, f"a.csv{SUFFIX}: is damaged"),
    ("a record that is no JSON", {f"a.csv{SUFFIX}": "{"}, f"a.csv{SUFFIX}: is not whole JSON"),
    ("a record without keys", {f"a.csv{SUFFIX}": "{}"}, f"a.csv{SUFFIX}: has no 'settings'"),
    ("a copy's checksums in a list", {"provenance.json": '{"sha256": []}'}, r"provenance\.json: differs from"),
    ("checksums of numbers", {"checksums.json": '{"files": {"a": 5}, "sha256": ""}'}, "differs from its own checksum"),
    (
        "checksums without one",
        {"checksums.json": '{"files": {"a": {}}, "sha256": ""}'},
        "differs from its own checksum",
    ),
    ("checksums in a list", {"checksums.json": '{"files": [], "sha256": ""}'}, "differs from its own checksum"),
    ("checksums that are none", {"checksums.json": "[]"}, r"checksums\.json: has no 'files'"),
    ("no checksums", {}, r"checksums\.json: is missing"),
]
TUNINGS = [("{}", "is no tuning"), ("[]", "is no tuning"), ("{", "is not whole JSON")]
TUNINGS += [('{"base_config": {}, "options": 1}', "is no tuning")]
TUNINGS += [('{"base_config": [], "options": 1, "calls": 1, "scheduler": "", "class": ""}', "is no tuning")]


def laid(folder: Path, files: dict[str, str | bytes]) -> None:
    os.mkfifo(folder / "pipe")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def called(files: dict[str, str | bytes], words: str) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        laid(folder, files)
        with contextlib.chdir(folder):
            command(*words.split())

    return attempt


def verified(files: dict[str, str]) -> Callable[[Path], str]:
    def attempt(folder: Path) -> str:
        laid(folder, dict(files))
        return next(differences(folder))

    return attempt


def tuning(content: str) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        (folder / "tuning.json").write_text(content)
        tuned_options("StableVS", {}, folder / "tuning.json")

    return attempt


CASES = [Case(name, called(files, words), line) for name, files, words, line in FILES]
CASES += [Case(f"verify: {name}", verified(files), line) for name, files, line in RECORDS]
CASES += [Case(f"tuning: {content[:20]}", tuning(content), line) for content, line in TUNINGS]
