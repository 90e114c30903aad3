"""Verbs that score images. Heavy imports happen in the verb."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stablevelocity.cli.options import (
    AutoencoderFile,
    HeldOutImages,
    Output,
    RunName,
    StudyFile,
    TrainImages,
    optional,
    run_of,
)

app = typer.Typer()


ClassifierFile = Annotated[
    Path | None, typer.Option("--judge", parser=optional, help="digit classifier; empty: Inception")
]
ReferenceFile = Annotated[Path, typer.Option("--reference", help="reference made by `reference`")]


@app.command()
def judge(study: StudyFile, train: TrainImages, heldout: HeldOutImages, output: Output) -> None:
    """Train the digit classifier whose features take Inception's place."""
    from stablevelocity.evaluation.stages import prepare_classifier

    prepare_classifier(study.evaluation, train, heldout, output)


@app.command()
def reference(
    study: StudyFile,
    train: TrainImages,
    output: Output,
    heldout: Annotated[Path | None, typer.Option(parser=optional, help="manifest of the held-out images")] = None,
    judge: ClassifierFile = None,
) -> None:
    """Statistics and features of the reference images."""
    from stablevelocity.evaluation.stages import write_reference

    write_reference(study.evaluation, judge, train, heldout, output)


@app.command()
def evaluate(
    study: StudyFile,
    run: RunName,
    step: Annotated[int, typer.Option(min=0)],
    sampler: Annotated[str, typer.Option()],
    samples: Annotated[Path, typer.Option(help="manifest of the set")],
    reference: ReferenceFile,
    output: Output,
    judge: ClassifierFile = None,
) -> None:
    """FID, sFID, IS, precision and recall of one set of images of a study."""
    from stablevelocity.evaluation.stages import evaluate_samples

    resolved = run_of(study, run)
    facts = {"run": run, "arm": resolved.arm, "seed": resolved.seed, "step": step, "sampler": sampler}
    evaluate_samples(study.evaluation, judge, reference, samples, output, facts)


@app.command()
def floor(
    study: StudyFile, heldout: HeldOutImages, reference: ReferenceFile, output: Output, judge: ClassifierFile = None
) -> None:
    """The real-vs-real baseline: the same metrics of held-out images, which no generator is expected to beat."""
    from stablevelocity.evaluation.stages import evaluate_real_images

    evaluate_real_images(study.evaluation, judge, reference, heldout, output)


@app.command()
def sweep(
    study: StudyFile,
    run: RunName,
    weights: Annotated[Path, typer.Option(help="its last weights")],
    autoencoder: AutoencoderFile,
    reference: ReferenceFile,
    output: Output,
    images_output: Annotated[Path, typer.Option(help="similarity to the long run, image by image")],
    judge: ClassifierFile = None,
    processes: Annotated[int, typer.Option(min=1, help="the numbers do not depend on it")] = 1,
) -> None:
    """Few-step and same-noise study of a run: every solver, StableVS and its control arm."""
    from stablevelocity.evaluation.sweep_stage import run_sweep

    run_sweep(study, run_of(study, run), weights, autoencoder, judge, reference, output, images_output, processes)


@app.command()
def score(
    samples: Annotated[Path, typer.Argument(help="manifest of shards, .npz or folder of images")],
    reference: Annotated[Path, typer.Argument(help="likewise; an ADM reference batch brings its statistics")],
    weights: Annotated[Path, typer.Option(help="Inception weights, or the folder of a digit classifier")],
    output: Output,
    extractor: Annotated[Literal["inception", "digits"], typer.Option()] = "inception",
    features: Annotated[Path | None, typer.Option(help="folder to keep the features in")] = None,
    bootstrap: Annotated[int, typer.Option(min=1)] = 200,
) -> None:
    """Score any set of images against any other, as the ADM evaluation does."""
    from stablevelocity.evaluation.stages import evaluate_any

    evaluate_any(samples, reference, extractor, weights, output, features, bootstrap)
