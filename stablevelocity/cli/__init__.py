"""The command line, `stablevelocity <verb>`."""

import sys


def main() -> None:
    """Entry point: a command runs in a fork of the workflow's warm start where there is one, else here."""
    from stablevelocity.cli.warm_start import run_warm

    status = run_warm()
    if status is None:
        run_here()
    sys.exit(status)


def run_here() -> None:
    """Run the command of `sys.argv`: a library of the pipeline that is not installed ends in one line."""
    try:
        from stablevelocity.cli.main import main as run

        run()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("stablevelocity"):
            raise
        sys.exit(f"error: {error.name} is not installed; expected the environment of stablevelocity[pipeline]")
