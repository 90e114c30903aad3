"""Options that many verbs have, and what they are turned into."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stablevelocity.errors import UserError, printable
from stablevelocity.files import clear_leftovers, damaged_put_aside, write_csv
from stablevelocity.study import Run, Study, load_study

if TYPE_CHECKING:
    import pandas as pd


def _can_be_made(output: Path) -> Path:
    """An output whose place is checked before there is anything to write."""
    above = next(folder for folder in output.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"--output {output}: {above} is no folder that can be written to")
    return output


def say(text: str) -> None:
    """To standard output; names that come from files may hold a terminal's commands."""
    typer.echo("\n".join(map(printable, text.split("\n"))))


def output_file(output: Path | None) -> Path | None:
    """What a killed job left of its output is removed when it starts again, not when it comes to write."""
    if output is None:
        return None
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder, expected a file")
    clear_leftovers(_can_be_made(output))
    return output


def _folder(output: Path) -> Path:
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: is a file, expected a folder")
    return _can_be_made(output)


def _study(context: typer.Context, file: Path) -> Study:
    """A damaged shard of its results that the verb meets is put aside."""
    context.with_resource(damaged_put_aside(file.parent))
    return load_study(file)


def optional(text: str) -> Path | None:
    """For options that a rule gives empty where there is no such file."""
    return Path(text) if text else None


StudyFile = Annotated[
    Study, typer.Option("--study", parser=Path, callback=_study, metavar="<path>", help="study file, YAML or JSON")
]
Output = Annotated[Path, typer.Option("--output", callback=output_file)]
OutputFolder = Annotated[Path, typer.Option("--output", callback=_folder)]
ImageShard = Annotated[Path, typer.Option("--images", help="shard of images")]
ImageManifest = Annotated[Path, typer.Option("--images", help="manifest of the images")]
TrainImages = Annotated[Path, typer.Option("--train", help="manifest of the train images")]
HeldOutImages = Annotated[Path, typer.Option("--heldout", help="manifest of the held-out images")]
Shards = Annotated[list[Path], typer.Argument()]
File = Annotated[Path, typer.Option()]
RunName = Annotated[str, typer.Option("--run", help="<arm>-s<seed>")]
AutoencoderFile = Annotated[Path, typer.Option("--autoencoder", help="description of the autoencoder")]
EncoderFile = Annotated[Path, typer.Option("--encoder", help="description of the encoder")]


def run_of(study: Study, name: str) -> Run:
    runs = study.runs()
    if name not in runs:
        raise UserError(f"--run {name}: no such run in study {study.name!r}; there are {', '.join(runs)}")
    return runs[name]


def write_tables(tables: Iterable["pd.DataFrame"], outputs: Iterable[Path]) -> None:
    for table, output in zip(tables, outputs, strict=True):
        write_csv(output, table)
