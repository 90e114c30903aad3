"""One bad input, and what the project says to it."""

import contextlib
import io
import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from stablevelocity.errors import UserError

SECONDS = 60  # no bad input is worth more
LONGEST = 400  # characters of a line that is still read


@dataclass(frozen=True)
class Case:
    """A bad input, laid into an empty folder and handed to the project.

    name: unique in its table.
    attempt: is given the folder, lays the input there, hands it to the project. What the project would make of it
        goes to `folder / "made"`. It ends in a UserError, or, where the input is one file of many that is left out
        while the others are used, returns the line that says so.
    expected: what the line must name, a regular expression.
    """

    name: str
    attempt: Callable[[Path], str | None]
    expected: str


def line_of(case: Case) -> str:
    """The one line that the input ends in.

    Raises AssertionError when there is none, or another one, or something had been made.
    """
    with tempfile.TemporaryDirectory() as scratch, _limited(case.name):
        folder = Path(scratch)
        try:
            line = case.attempt(folder)
        except UserError as error:
            line = str(error)
        assert line, "accepted without a word"
        assert line.isprintable(), f"not one line: {line!r}"
        assert len(line) <= LONGEST, f"{len(line)} characters: {line!r}"
        assert re.search(case.expected, line), f"{line!r} does not name {case.expected!r}"
        made = [str(path.relative_to(folder)) for path in folder.glob("made/**/*") if not path.is_dir()]
        assert not made, f"made before the line: {made}"
        return line


def command(*words: object) -> None:
    """`stablevelocity <words>` in this process. Raises UserError with its one line where it ends in an error."""
    from stablevelocity.cli.main import main

    said = io.StringIO()
    argv = patch.object(sys, "argv", ["stablevelocity", *map(str, words)])
    with _logging_kept(), argv, contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            if end.code in (None, 0):
                return
            said.write(end.code if isinstance(end.code, str) else "")
    lines = [line for line in said.getvalue().splitlines() if not (line.startswith("warning: ") or ", ETA " in line)]
    raise UserError("\n".join(lines).removeprefix("error: "))


@contextlib.contextmanager
def _logging_kept() -> Iterator[None]:
    """The command line sets handlers for the whole process."""
    root, environment = logging.getLogger(), dict(os.environ)
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level
        logging.captureWarnings(False)
        os.environ.clear()
        os.environ.update(environment)


@contextlib.contextmanager
def _limited(name: str) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"{name}: still at work after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
