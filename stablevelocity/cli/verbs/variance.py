"""Verbs of the variance curves and the toy experiment. Heavy imports happen in the verb."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stablevelocity.cli.options import File, Output, StudyFile, write_tables
from stablevelocity.errors import UserError
from stablevelocity.files import write_csv

app = typer.Typer()


@app.command()
def gmm_variance(
    study: StudyFile, dimension: Annotated[int, typer.Option(min=1, max=65_536)], curve: File, split_point: File
) -> None:
    """V_CFM(t) of a Gaussian mixture, by the empirical and the exact distribution."""
    from stablevelocity.experiments.variance_study import gmm_tables

    write_tables(gmm_tables(study.variance, dimension), (curve, split_point))


@app.command()
def data_variance(
    study: StudyFile,
    source: Annotated[Literal["pixels", "latents"], typer.Option()],
    manifest: File,
    curve: File,
    split_point: File,
) -> None:
    """V_CFM(t) of the train split's pixels or latents."""
    from stablevelocity.experiments.variance_study import data_tables

    write_tables(data_tables(study.variance, source, manifest), (curve, split_point))


@app.command()
def variance_references(study: StudyFile, output: Output) -> None:
    """V_CFM(t) of a Gaussian mixture against the size of the empirical distribution."""
    from stablevelocity.experiments.variance_study import reference_table

    write_csv(output, reference_table(study.variance))


@app.command()
def toy(study: StudyFile, folder: Annotated[Path, typer.Option(help="where its tables go")]) -> None:
    """The 10-dimensional mixture: CFM, STF and StableVM against the closed-form velocity."""
    from stablevelocity.experiments.toy import run_toy

    if study.toy is None:
        raise UserError(f"toy is null; study {study.name!r} has no toy experiment")
    tables = run_toy(study.toy)
    write_tables(tables, [folder / f"{name}.csv" for name in tables._fields])


@app.command()
def exact_flow(study: StudyFile, output: Output) -> None:
    """StableVS, its base solvers and its control arm on mixtures whose velocity is known."""
    from stablevelocity.experiments.exact_flow import exact_flow_table

    if study.exact_flow is None:
        raise UserError(f"exact_flow is null; study {study.name!r} has no experiment on exact velocities")
    write_csv(output, exact_flow_table(study.exact_flow))


@app.command()
def latent_spectrum(
    latents: Annotated[Path, typer.Argument(help="manifest of latents, of any autoencoder")], output: Output
) -> None:
    """Standard deviations of latents along their principal axes: where a data set lies among the exact flows."""
    from stablevelocity.experiments.latent_spectrum import latent_spectrum as spectrum

    write_csv(output, spectrum(latents))


@app.command()
def join_tables(
    output: Annotated[list[Path], typer.Option(help="of several each takes its share of the tables, in order")],
    tables: Annotated[list[Path], typer.Argument()],
) -> None:
    """Put the rows of CSV tables into one."""
    import pandas as pd

    share = len(tables) // len(output)
    parts = [tables[place : place + share] for place in range(0, len(tables), share)]
    write_tables([pd.concat([pd.read_csv(table) for table in part]) for part in parts], output)
