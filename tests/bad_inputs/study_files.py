"""Study files that are no text, no YAML, or YAML that is not meant for a study."""

import os
from collections.abc import Callable
from pathlib import Path

from bad_inputs.case import Case, command
from bad_inputs.study_keys import CONFIG

SMOKE = (CONFIG / "smoke.yaml").read_text()
DEEP = 100_000
BOMB = "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9) if i else '1'}]\n" for i in range(12))

#: (what is wrong, the bytes of the file, what the line names)
CONTENTS: list[tuple[str, bytes, str]] = [
    ("UTF-16", SMOKE.encode("utf-16"), "is not text in UTF-8"),
    ("UTF-16 without a mark", SMOKE.encode("utf-16-le"), "is not YAML"),
    ("UTF-32", SMOKE.encode("utf-32"), "is not text in UTF-8"),
    ("Latin-1", SMOKE.replace("label: CFM", "label: Tür").encode("latin-1"), "is not text in UTF-8"),
    ("zero bytes", b"\0" * 100, "is not YAML"),
    ("a pickle", b"\x80\x04\x95\x10\x00\x00\x00", "is not text in UTF-8"),
    ("empty", b"", "expected a mapping of sections, given NoneType"),
    ("comments alone", b"# name: x\n", "expected a mapping of sections, given NoneType"),
    ("a list", b"[1, 2]", "expected a mapping of sections, given list"),
    ("a word", b"smoke", "expected a mapping of sections, given str"),
    ("two documents", b"name: a\n---\nname: b\n", "line 2 is not YAML"),
    ("an open bracket", b"name: [1,\nb: 2", "line 2 is not YAML"),
    ("a tab", b"name:\n\tx: 1\n", "line 2 is not YAML"),
    ("an unknown anchor", b"name: *x\n", "line 1 is not YAML"),
    ("an unknown tag", b"name: !x 1\n", "line 1 is not YAML"),
    ("a tag that runs", b"name: !!python/object/apply:os.system [touch made]\n", "line 1 is not YAML"),
    ("a key twice", b"name: a\ntraining:\n  steps: 2\n  steps: 3\n", r"line 4: the key 'steps' stands twice"),
    ("an arm twice", b"name: a\narms:\n  a: {label: a}\n  a: {label: b}\n", r"line 4: the key 'a' stands twice"),
    (
        "a key twice in what is merged",
        b"name: a\ntraining:\n  <<: {lr: 1, lr: 2}\n",
        r"line 3: the key 'lr' stands twice",
    ),
    ("two merges", b"name: a\ntraining:\n  <<: {lr: 1}\n  <<: {lr: 2}\n", r"line 4: the key '<<' stands twice"),
    ("a merge of itself", b"name: a\narms: &a {<<: *a}\n", r"arms: a study needs arms"),
    ("a merge of a number", b"name: a\narms: {<<: [5]}\n", "line 2 is not YAML"),
    ("an escape of no letter", b'name: "\\U00110000"\n', r"is not YAML"),
    ("an escape of half a letter", b'name: "\\ud800"\n', r"name: Input should be a valid string"),
    ("another version of YAML", b"%YAML 9.9\n---\nname: a\n", "line 1 is not YAML"),
    (
        "a Cyrillic letter in a key",
        SMOKE.encode() + "tr\u0430ining: {}\n".encode(),
        r"no such key; did you mean 'training'",
    ),
    ("a mark inside", SMOKE.encode() + "\ufeffvariance: {}\n".encode(), r"ufeffvariance': no such key"),
    ("a decimal comma", b"name: a\ntraining: {lr: 1,5}\n", r"training\.5: Keys should be strings"),
    ("a key twice in JSON", b'{"name": "a", "name": "b"}', r"line 1: the key 'name' stands twice"),
    ("a list as key", b"? [a, b]\n: 1\n", r"line 1: a key should be text, given a sequence"),
    ("a mapping as key", b"? {a: b}\n: 1\n", r"line 1: a key should be text, given a mapping"),
    ("a number as key", b"name: a\n5: 1\n", "Keys should be strings, given"),
    ("yes as key", b"name: a\nyes: 1\n", "Keys should be strings, given"),
    ("nothing as key", b"name: a\n~: 1\n", "Keys should be strings, given"),
    ("5,000 digits", b"name: a\ntraining: {steps: " + b"9" * 5000 + b"}", r"line 2: cannot be read, given '999"),
    ("4,000 digits", SMOKE.encode() + b"evaluation_: " + b"9" * 4000, r"evaluation_: no such key"),
    ("4,000 digits in a key", b"name: a\ntraining: {steps: " + b"9" * 4000 + b"}", r"steps: .*given 9+\.\.\.9+"),
    (
        "5,000 hexadecimal digits",
        b"name: a\ntraining: {steps: 0x" + b"f" * 5000 + b"}",
        r"steps: .*more digits than are shown",
    ),
    ("a date that is none", b"name: 2020-13-45\n", r"line 1: cannot be read, given '2020-13-45'"),
    ("a date", b"name: 2020-01-01\n", r"name: Input should be a valid string"),
    ("bytes", b"name: !!binary aGVsbG8=\n", r"name: String should|name: Input should|arms: a study needs arms"),
    ("a set", b"name: a\nimages: !!set {size}\n", r"images: Input should be a valid dictionary"),
    ("deep lists", b"name: " + b"[" * DEEP, "is nested too deeply"),
    ("deep mappings", b"name: " + b"{a: " * DEEP, "is nested too deeply"),
    ("deep lists in JSON", b'{"name": ' + b"[" * DEEP + b"]" * DEEP + b"}", "is nested too deeply"),
    ("ten to the twelve by references", BOMB.encode() + b"name: *x11\n", r"name: Input should be a valid string"),
    ("itself", b"name: &a [*a]\n", r"name: Input should be a valid string"),
    ("itself as an arm", b"name: a\narms: &a {b: *a}\n", r"arms\.b\.label: Field required"),
    ("2 MB", SMOKE.encode() + b"#" * 2**21, "has more than 1,048,576 bytes"),
    ("control characters", b"na\x1b[31mme: 1\n", "is not YAML"),
    ("an escape in a key", b'"a\\e[31m\\nb": 1\nname: x\n', r"'a\\x1b\[31m\\nb': no such key"),
    ("infinity in JSON", b'{"name": "a", "training": {"lr": Infinity}}', r"training\.lr: "),
    ("a command in a value", b"name: $(touch made)\n", r"name: String should match pattern"),
    ("include", b"name: !include /etc/passwd\n", "line 1 is not YAML"),
]


def content(data: bytes) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        (folder / "study.yaml").write_bytes(data)
        command("check", folder / "study.yaml")

    return attempt


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "study.yaml")
    command("check", folder / "study.yaml")


def loop(folder: Path) -> None:
    (folder / "study.yaml").symlink_to(folder / "study.yaml")
    command("check", folder / "study.yaml")


CASES = [Case(name, content(data), expected) for name, data, expected in CONTENTS] + [
    Case("not there", lambda folder: command("check", folder / "no.yaml"), r"no\.yaml: cannot be read"),
    Case("a folder", lambda folder: command("check", folder), "cannot be read"),
    Case("a device", lambda folder: command("check", "/dev/zero"), "/dev/zero: cannot be used; expected a regular"),
    Case("a named pipe", pipe, "expected a regular file"),
    Case("a link to itself", loop, "cannot be read"),
    Case("a name of 5,000 letters", lambda folder: command("check", folder / ("x" * 300)), "cannot be read"),
]
