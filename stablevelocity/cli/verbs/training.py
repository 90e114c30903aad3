"""Verbs of training runs. Heavy imports happen in the verb."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stablevelocity.cli.options import Output, StudyFile, optional, run_of, say
from stablevelocity.errors import UserError
from stablevelocity.files import write_csv

app = typer.Typer()


@app.command()
def train(
    study: StudyFile,
    run: Annotated[list[str], typer.Option(help="<arm>-s<seed>; repeated: one after the other, in one job")],
    latents: Annotated[Path, typer.Option(help="manifest of the latents")],
    folder: Annotated[Path, typer.Option(help="folder of the runs; each gets its own in it")],
    features: Annotated[Path | None, typer.Option(parser=optional, help="manifest of features; empty: none")] = None,
    remake: Annotated[list[str], typer.Option(help="a run that today's code begins anew, if other code made it")] = [],  # noqa: B006
    launcher: Annotated[
        Literal["local", "submitit-local", "slurm"], typer.Option(help="local, submitit-local or slurm")
    ] = "local",
    site: Annotated[Path, typer.Option(help="what differs between clusters")] = Path("config/site.yaml"),
) -> None:
    """Train runs to their end, here or in a job, resuming from their last checkpoints."""
    from stablevelocity.cluster.launch import launch
    from stablevelocity.cluster.site import load_site
    from stablevelocity.cluster.tasks import Task
    from stablevelocity.training.identity import begun_run

    wanted = [run_of(study, name) for name in run]
    for resolved in wanted:
        if resolved.waits_for_curve:
            raise UserError(f"arms.{resolved.arm}: auto, but the curve of the latents does not lie beside it")
    tasks = []
    for resolved in wanted:
        inputs = latents, features if resolved.alignment or resolved.class_token else None, folder / resolved.name
        tasks.append(Task(resolved, *inputs, begun_run(resolved, *inputs, remake=resolved.name in remake)))
    launch(tasks, launcher, load_site(site))


@app.command()
def jobs(results: Annotated[Path, typer.Argument(help="results/<study>")]) -> None:
    """How the training runs of a study stand: state, job, step, last checkpoint, restarts, time to go."""
    from stablevelocity.cluster.overview import overview

    say(overview(results))


@app.command()
def tensorboard(
    results: Annotated[Path, typer.Argument(help="results/<study>")],
    output: Annotated[Path | None, typer.Option(help="none: results/<study>/tensorboard")] = None,
) -> None:
    """Write the metrics of all runs as TensorBoard event files; run again to refresh."""
    from stablevelocity.cli.tensorboard import write_events

    folder = output or results / "tensorboard"
    typer.echo(f"{folder}: {len(write_events(results, folder))} runs; look with `tensorboard --logdir {folder}`")


@app.command()
def alignment_curve(
    study: StudyFile,
    weights: Annotated[Path, typer.Option()],
    latents: Annotated[Path, typer.Option(help="manifest of the latents")],
    features: Annotated[Path, typer.Option(help="manifest of the features")],
    output: Output,
) -> None:
    """Alignment loss against time of a trained run."""
    from stablevelocity.training.alignment_curve import alignment_curve as curve

    write_csv(output, curve(weights, latents, features))


@app.command()
def gradient_variance(
    study: StudyFile,
    weights: Annotated[list[Path], typer.Option(help="weights of one run; repeated: its kept steps")],
    latents: Annotated[Path, typer.Option(help="manifest of the latents")],
    output: Output,
) -> None:
    """Variance of a batch's gradient at the weights of a run, with the targets of CFM and StableVM."""
    from stablevelocity.training.gradient_variance import gradient_variance as measured

    if study.gradient_variance is None:
        raise UserError(f"study {study.name!r}: gradient_variance: not given, so nothing says how to measure it")
    write_csv(output, measured(study.gradient_variance, weights, latents))
