"""`stablevelocity <verb>`: a thin layer, each verb one call into the library."""

import io
import logging
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from stablevelocity.cli.verbs import data, evaluation, pretrained, report, sampling, study, training, tuning, variance
from stablevelocity.errors import UserError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def main() -> None:
    """Entry point: a wrong command line, a UserError, or a file that is not there ends in one line."""
    try:
        sys.exit(app(standalone_mode=False))
    except typer.Abort:  # Ctrl-C
        sys.exit(130)
    except typer.TyperException as error:
        if len(sys.argv) == 1:
            app(["--help"], standalone_mode=False)
        else:
            said = " ".join(error.format_message().split()).rstrip(".")
            print(f"error: {said}; see stablevelocity --help", file=sys.stderr)
        sys.exit(2)
    except UserError as error:
        logging.getLogger("stablevelocity").error(f"error: {error}")
        sys.exit(1)
    except FileNotFoundError as error:
        if error.filename is None:
            raise
        logging.getLogger("stablevelocity").error(f"error: {error.filename}: no such file")
        sys.exit(1)


@app.callback()
def prepare(
    context: typer.Context,
    log: Annotated[Path | None, typer.Option(help="also write what is said to this file")] = None,
) -> None:
    """Stable Velocity, reproduced: StableVM, VA-REPA and StableVS."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log))
    logging.basicConfig(level=logging.WARNING, handlers=handlers, format="%(message)s", force=True)
    logging.getLogger("stablevelocity").setLevel(logging.INFO)
    # A warning is one line, and stands in the log file too.
    warnings.formatwarning = lambda message, *where: f"warning: {message}"
    logging.captureWarnings(True)
    for stream in (sys.stdout, sys.stderr):  # a letter that the terminal has not is shown by its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
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
