"""Options that many verbs have, and what they are turned into."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write, clear_leftovers
from stablevelocity.study import Study

if TYPE_CHECKING:
    import pandas as pd


def _writable(output: Path) -> Path:
    """An output whose place is checked, and cleared of what a killed job left, before there is anything to write."""
    above = next(folder for folder in output.absolute().parents if folder.exists())
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder, expected a file")
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"--output {output}: {above} is no folder that can be written to")
    clear_leftovers(output)
    return output


StudyFile = Annotated[Path, typer.Option("--study", help="study file, YAML or JSON")]
Output = Annotated[Path, typer.Option("--output", callback=_writable)]
ImageShard = Annotated[Path, typer.Option("--images", help="shard of images")]
ImageManifest = Annotated[Path, typer.Option("--images", help="manifest of the images")]
TrainImages = Annotated[Path, typer.Option("--train", help="manifest of the train images")]
HeldOutImages = Annotated[Path, typer.Option("--heldout", help="manifest of the held-out images")]
Shards = Annotated[list[Path], typer.Argument()]
AutoencoderFile = Annotated[Path, typer.Option("--autoencoder", help="description of the autoencoder")]
EncoderFile = Annotated[Path, typer.Option("--encoder", help="description of the encoder")]


def run_of(study: Study, name: str):
    """The run `name` of a study."""
    runs = study.runs()
    if name not in runs:
        raise UserError(f"--run {name}: no such run in study {study.name!r}; there are {', '.join(runs)}")
    return runs[name]


def write_tables(tables: Iterable["pd.DataFrame"], outputs: Iterable[Path]) -> None:
    for table, output in zip(tables, outputs, strict=True):
        with atomic_write(output) as temporary:
            table.to_csv(temporary, index=False)
