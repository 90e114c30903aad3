"""The command line, `stablevelocity <verb>`."""

import sys


def main() -> None:
    """Entry point: a library of the pipeline that is not installed ends in one line."""
    try:
        from stablevelocity.cli.main import main as run

        run()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("stablevelocity"):
            raise
        sys.exit(f"error: {error.name} is not installed; expected the environment of stablevelocity[pipeline]")
