"""Prompt files: GenEval's metadata, and a prompt per line."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from bad_inputs.case import Case, command
from stablevelocity.pretrained.prompts import read_geneval, read_plain

CLAUSE = {"class": "bench", "count": 1}
GOOD: dict[str, Any] = {"tag": "single_object", "include": [CLAUSE], "prompt": "a photo of a bench"}
LINE = json.dumps(GOOD)


def entry(**changes: Any) -> str:
    return json.dumps(GOOD | changes)


def clauses(*changes: dict[str, Any]) -> str:
    return entry(include=[CLAUSE | change for change in changes])


#: (what is wrong, the text, what the line names)
GENEVAL: list[tuple[str, str | bytes, str]] = [
    ("empty", "", "holds no prompt"),
    ("blank lines", "\n \n\t\n", "holds no prompt"),
    ("no JSON", LINE + "\nprompt: x\n", "line 2 is not JSON"),
    ("a cut line", LINE[:-5], "line 1 is not JSON"),
    ("a list", "[1]", "line 1 is not a GenEval entry"),
    ("a number", "5", "line 1 is not a GenEval entry"),
    ("null", "null", "line 1 is not a GenEval entry"),
    ("deep", "[" * 100_000, "line 1 is not JSON"),
    ("no tag", '{"include": [], "prompt": "x"}', "line 1 .*tag: Field required"),
    ("an unknown tag", entry(tag="style"), r"line 1 .*tag: .*given 'style'"),
    ("a tag that climbs", entry(tag="../../x"), r"line 1 .*tag: "),
    ("a tag that is none", entry(tag=None), r"line 1 .*tag: "),
    ("no clause", entry(include=[]), r"line 1 .*include: .*at least 1 item"),
    ("a clause that is a word", entry(include=["bench"]), r"line 1 .*include\.0"),
    ("no class", entry(include=[{"count": 1}]), r"line 1 .*include\.0\.class: Field required"),
    ("an empty class", clauses({"class": ""}), r"line 1 .*include\.0\.class: "),
    ("no count", entry(include=[{"class": "bench"}]), r"line 1 .*include\.0\.count: Field required"),
    ("a negative count", clauses({"count": -1}), r"line 1 .*include\.0\.count: .*greater than 0, given -1"),
    ("no objects", clauses({"count": 0}), r"line 1 .*include\.0\.count: .*greater than 0, given 0"),
    ("a great count", clauses({"count": 10**9}), r"line 1 .*include\.0\.count: .*less than or equal to 100"),
    ("half an object", clauses({"count": 1.5}), r"line 1 .*include\.0\.count: "),
    ("a boolean count", clauses({"count": True}), r"line 1 .*include\.0\.count: Input should be a number"),
    ("NaN objects", clauses({"count": float("nan")}), r"line 1 .*include\.0\.count: "),
    ("a number as colour", clauses({"color": 5}), r"line 1 .*include\.0\.color: "),
    ("an unknown place", clauses({}, {"position": ["behind", 0]}), r"line 1 .*include\.1\.position\.0: "),
    (
        "a place beside a later one",
        clauses({"position": ["above", 1]}, {}),
        r"include\.0\.position: refers to clause",
    ),
    ("a place beside itself", clauses({"position": ["above", 0]}), r"include\.0\.position: refers to clause 0"),
    ("a negative place", clauses({}, {"position": ["above", -1]}), r"include\.1\.position\.1: .*greater than or equal"),
    ("a place without other", clauses({}, {"position": ["above"]}), r"include\.1\.position\.1: Field required"),
    ("a wrong exclude", entry(exclude=[{"class": "x", "count": -2}]), r"line 1 .*exclude\.0\.count: "),
    ("no prompt", entry(prompt=None), r"line 1 .*prompt: "),
    ("an empty prompt", entry(prompt=""), r"line 1 .*prompt: .*not empty"),
    ("a prompt with a break", entry(prompt="a\nb"), r"line 1 .*prompt: .*printable"),
    ("a long prompt", entry(prompt="x" * 1001), r"line 1 .*prompt: .*at most 1000"),
    ("Latin-1", entry(prompt="x").replace("x", "ü").encode("latin-1"), "is not text in UTF-8"),
    ("UTF-16", LINE.encode("utf-16"), "is not text in UTF-8"),
    ("a gzip file", b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "is not text in UTF-8"),
    ("17 MB", LINE + "\n" * (17 * 2**20), "has more than 16,777,216 bytes"),
]
PLAIN: list[tuple[str, str | bytes, str]] = [
    ("empty", "", "holds no prompt"),
    ("an escape", "a bench\n\x1b[31mred\n", "line 2 is no prompt"),
    ("zero bytes", "a\0b", "line 1 is no prompt"),
    ("a long line", "x" * 1001, "line 1 is no prompt"),
    ("JSON without a prompt", '{"tag": "x"}', "line 1 is no prompt"),
    ("JSON with a number as prompt", '{"prompt": 5}', "line 1 is no prompt"),
    ("a cut JSON line", '{"prompt": ', "line 1 is not JSON"),
    ("Latin-1", "für".encode("latin-1"), "is not text in UTF-8"),
]


def read(reader: Callable[[Path], object], content: str | bytes) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        (folder / "prompts").write_bytes(content if isinstance(content, bytes) else content.encode())
        reader(folder / "prompts")

    return attempt


def from_study(content: str, shards: int) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        (folder / "prompts").write_text(content)
        family = {"prompts": str(folder / "prompts"), "shards": shards}
        study = {"name": "x", "pretrained": {"families": {"sd35": family}}}
        (folder / "study.yaml").write_text(yaml.safe_dump(study))
        command("check", folder / "study.yaml")

    return attempt


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "prompts")
    read_plain(folder / "prompts")


CASES = [Case(f"GenEval: {name}", read(read_geneval, text), expected) for name, text, expected in GENEVAL]
CASES += [Case(f"lines: {name}", read(read_plain, text), expected) for name, text, expected in PLAIN]
CASES += [
    Case("not there", lambda folder: read_plain(folder / "no") and None, "cannot be read"),
    Case("a folder", lambda folder: read_geneval(folder) and None, "cannot be read"),
    Case("a named pipe", pipe, "expected a regular file"),
    Case("of a study: an unknown tag", from_study(entry(tag="style"), 1), r"line 1 .*tag: "),
    Case("of a study: fewer than shards", from_study(LINE, 2), r"families\.sd35\.shards: 2 shards, but only 1 prompts"),
]
