"""`stablevelocity <verb>`: a thin layer, each verb one call into the library."""

import codecs
import contextlib
import functools
import io
import locale
import logging
import os
import re
import resource
import stat
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated

import typer

from stablevelocity.cli.failures import one_line
from stablevelocity.cli.overall_progress import QUIET
from stablevelocity.cli.verbs import data, evaluation, pretrained, report, sampling, study, training, tuning, variance
from stablevelocity.errors import UserError, printable
from stablevelocity.files import write_json
from stablevelocity.provenance import code_hash, provenance_file, write_provenance


def record(_: None, makes: list[Path], reads: list[Path], settings: str, code: list[str], **__: object) -> None:
    """After a verb that the workflow called: leave beside what it made what that was made from."""
    if makes:
        hashed = code_hash(*(f"stablevelocity.{module}" for module in code))
        write_provenance(makes, inputs=reads, settings=settings, code=hashed, command=sys.argv)


def write_usage(file: Path, start: float) -> None:
    """When this job ran, in seconds of the clock, its processor time and its largest memory (report: `history`)."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in used)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes; macOS counts these, others KiB
    memory = max(one.ru_maxrss for one in used) * unit / 2**20
    write_json(file, {"start": start, "end": time.time(), "cpu": cpu, "memory": memory})


app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, result_callback=record)


def main() -> None:
    """Entry point: a wrong command line, and what the user can correct, end in one line without traceback."""
    try:
        sys.exit(app(standalone_mode=False))
    except typer.Abort:  # Ctrl-C
        sys.exit(130)
    except typer.TyperException as error:
        if len(sys.argv) == 1:
            app(["--help"], standalone_mode=False)
        else:
            said = printable(" ".join(error.format_message().split()).rstrip(".")[:300])
            print(f"error: {said}; see stablevelocity --help", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if (line := one_line(error)) is None:
            raise
        logging.getLogger("stablevelocity").error(f"error: {line}")
        sys.exit(1)


@app.callback()
def prepare(
    context: typer.Context,
    log: Annotated[Path | None, typer.Option(help="also write what is said to this file")] = None,
    makes: Annotated[list[Path], typer.Option(help="a file that is made; its provenance is written beside it")] = [],  # noqa: B006
    reads: Annotated[list[Path], typer.Option(help="for its provenance: a file that it is made from")] = [],  # noqa: B006
    settings: Annotated[str, typer.Option(help="for its provenance: the settings it depends on")] = "",
    code: Annotated[list[str], typer.Option(help="for its provenance: the modules that make it")] = [],  # noqa: B006
) -> None:
    """Stable Velocity, reproduced: StableVM, VA-REPA and StableVS."""
    # If this job is killed, no record speaks of files that another one made. That of files which are gone stays: by it
    # the workflow sees that they came out the same again.
    if any(path.exists() for path in makes):
        provenance_file(makes[0]).unlink(missing_ok=True)
    handlers: list[logging.Handler] = []
    if log is None or QUIET not in os.environ:
        handlers.append(logging.StreamHandler(sys.stderr))
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log))
        context.call_on_close(functools.partial(write_usage, log.with_suffix(".json"), time.time()))
    logging.basicConfig(level=logging.WARNING, handlers=handlers, format="%(message)s", force=True)
    logging.getLogger("stablevelocity").setLevel(logging.INFO)
    logging.raiseExceptions = False  # a log file on a full disk is no second error
    # A warning is one line, and stands in the log file too.
    warnings.formatwarning = lambda message, *where: f"warning: {message}"
    logging.captureWarnings(True)
    for stream in (sys.stdout, sys.stderr):  # a letter that the terminal has not is shown by its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if codecs.lookup(encoding := locale.getpreferredencoding(False)).name != "utf-8":  # of all files that are written
        raise UserError(f"the locale's encoding is {encoding}, expected UTF-8: set PYTHONUTF8=1")
    for word in sys.argv[1:]:  # to read a pipe is to wait, to write a device is to put a file in its place
        with contextlib.suppress(OSError, ValueError):
            if not (stat.S_ISREG(mode := os.stat(word).st_mode) or stat.S_ISDIR(mode)):
                raise UserError(f"{word}: cannot be used; expected a regular file or a folder")
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    if not re.fullmatch(r"[1-9]\d{0,3}(,[1-9]\d{0,3})*", threads):  # before torch's own library complains
        raise UserError(f"OMP_NUM_THREADS={threads!r}: expected a number of threads")
    os.environ["MPLBACKEND"] = "agg"  # no window, whatever the user's other work needs
    # Nothing but `download` may reach for the network. The hub's library reads this once, when it is imported.
    if context.invoked_subcommand == "download":
        os.environ["HF_HUB_OFFLINE"] = "0"
    else:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


for module in (study, data, variance, training, sampling, evaluation, report, pretrained, tuning):
    for verb in module.app.registered_commands:
        verb.rich_help_panel = module.__name__.rpartition(".")[2].capitalize()
    app.add_typer(module.app)


if __name__ == "__main__":
    main()
