"""What Snakemake does before it reads a rule, where it would end in a traceback: the profile `default` calls both.

Snakemake takes every word after --configfile as a file, missing or not. And it keeps copies of source files in the home
folder, which may be full or not writable.
"""

import argparse
import os
import sys
from pathlib import Path

import snakemake.common

from stablevelocity.errors import UserError
from stablevelocity.study import read_yaml


def keep_cache_inside() -> None:
    """Snakemake's cache lies in the folder that one works in, and nothing of it in the home folder."""
    folders = type(snakemake.common.get_appdirs())
    inside = {"user_cache_dir": property(lambda _: os.path.abspath(".snakemake/cache"))}
    snakemake.common.APPDIRS = type("Folders", (folders,), inside)("snakemake", "snakemake")


def check_configfiles() -> None:
    """End the process, in one line, when a word after --configfile in `sys.argv` is no file of YAML, or one after
    --config no key with a value.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--configfile", "--configfiles", nargs="+", type=Path, default=[])
    parser.add_argument("--config", nargs="*", default=[])
    given = parser.parse_known_args()[0]
    files: list[Path] = given.configfile
    try:
        for word in given.config:
            if "=" not in word:
                raise UserError(f"--config: {word!r} is no key=value; a target goes before it")
        for file in files:
            if not file.exists():
                raise UserError(
                    f"--configfile: there is no file {str(file)!r}; a target goes before it, "
                    f"as in: snakemake all --configfile {files[0] if files[0].exists() else 'config/smoke.yaml'}"
                )
            read_yaml(file)
    except UserError as error:
        sys.exit(f"error: {error}")
