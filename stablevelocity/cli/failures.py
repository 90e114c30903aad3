"""What of an error is one line for the user, and what is a mistake of this program, which shows its traceback."""

import csv
import json
import sys
import tarfile
import traceback
import zipfile
from pathlib import Path

from safetensors import SafetensorError

from stablevelocity.errors import UserError, printable

# A file that is not what it should be, cut or damaged.
FORMATS = (SafetensorError, zipfile.BadZipFile, tarfile.TarError, json.JSONDecodeError, UnicodeDecodeError, EOFError)
FORMATS += (csv.Error,)


LONGEST = 400  # characters of a line that is still read


def one_line(error: BaseException) -> str | None:
    """The line that names the file and what is wrong with it; None for an error that the user cannot correct."""
    line = _line(error)
    return line if line is None or len(line) <= LONGEST else f"{line[:200]} ... {line[-190:]}"


def _line(error: BaseException) -> str | None:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, FileNotFoundError) and error.filename:
        return printable(f"{error.filename}: no such file")
    if isinstance(error, OSError):
        what, reason = error.filename or _file_of(error), error.strerror or str(error)
    elif isinstance(error, FORMATS) or _of_pandas(error):
        what, reason = _file_of(error), f"is damaged or of another kind ({error})"
    else:
        return None
    reason = " ".join(reason.split())[:300]
    return printable(f"{what}: {reason}" if what else reason)


def _of_pandas(error: BaseException) -> bool:
    """Whether it says that a CSV is empty or none; if pandas is not loaded, it does not."""
    errors = getattr(sys.modules.get("pandas"), "errors", None)
    return errors is not None and isinstance(error, (errors.EmptyDataError, errors.ParserError))


def _file_of(error: BaseException) -> Path | None:
    """The file that was at work where the error came from: such errors do not say themselves."""
    for frame in reversed([frame for frame, _ in traceback.walk_tb(error.__traceback__)]):
        if frame.f_globals.get("__name__", "").startswith("stablevelocity."):
            paths = [value for value in frame.f_locals.values() if isinstance(value, Path)]
            if paths:
                return next((path for path in paths if path.is_file()), paths[0])
    return None
