"""Study files on Snakemake's command line, checked before Snakemake reads them: the profile `default` does that.

Snakemake takes every word after --configfile as a file, and ends in a traceback where one is missing or no text.
"""

import argparse
import sys
from pathlib import Path

from stablevelocity.errors import UserError
from stablevelocity.study import read_yaml


def check_configfiles() -> None:
    """End the process, in one line, when a word after --configfile in `sys.argv` is no file of YAML."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--configfile", "--configfiles", nargs="+", type=Path, default=[])
    files: list[Path] = parser.parse_known_args()[0].configfile
    try:
        for file in files:
            if not file.exists():
                raise UserError(
                    f"--configfile: there is no file {str(file)!r}; a target goes before it, "
                    f"as in: snakemake all --configfile {files[0] if files[0].exists() else 'config/smoke.yaml'}"
                )
            read_yaml(file)
    except UserError as error:
        sys.exit(f"error: {error}")
