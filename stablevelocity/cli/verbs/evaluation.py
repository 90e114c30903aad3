"""Verbs that score images. Heavy imports happen in the verb."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stablevelocity.cli.options import AutoencoderFile, HeldOutImages, Output, RunName, StudyFile, TrainImages, run_of
from stablevelocity.files import damaged_put_aside
from stablevelocity.study import load_study

app = typer.Typer()


ClassifierFile = Annotated[str, typer.Option("--judge", help="description of the digit classifier; empty: Inception")]
ReferenceFile = Annotated[Path, typer.Option("--reference", help="reference made by `reference`")]


@app.command()
def judge(study: StudyFile, train: TrainImages, heldout: HeldOutImages, output: Output) -> None:
    """Train the digit classifier whose features take Inception's place."""
    from stablevelocity.evaluation.stages import prepare_classifier

    with damaged_put_aside(study.parent):
        prepare_classifier(load_study(study).evaluation, train, heldout, output)


@app.command()
def reference(
    study: StudyFile,
    train: TrainImages,
    output: Output,
    heldout: Annotated[str, typer.Option(help="manifest of the held-out images; empty: none are kept beside")] = "",
    judge: ClassifierFile = "",
) -> None:
    """Statistics and features of the reference images."""
    from stablevelocity.evaluation.stages import write_reference

    with damaged_put_aside(study.parent):
        write_reference(load_study(study).evaluation, _path(judge), train, _path(heldout), output)


@app.command()
def evaluate(
    study: StudyFile,
    run: RunName,
    step: Annotated[int, typer.Option(min=0)],
    sampler: Annotated[str, typer.Option()],
    samples: Annotated[Path, typer.Option(help="manifest of the set")],
    reference: ReferenceFile,
    output: Output,
    judge: ClassifierFile = "",
) -> None:
    """FID, sFID, IS, precision and recall of one set of images of a study."""
    from stablevelocity.evaluation.stages import evaluate_samples

    loaded = load_study(study)
    resolved = run_of(loaded, run)
    facts = {"run": run, "arm": resolved.arm, "seed": resolved.seed, "step": step, "sampler": sampler}
    with damaged_put_aside(study.parent):
        evaluate_samples(loaded.evaluation, _path(judge), reference, samples, output, facts)


@app.command()
def floor(
    study: StudyFile, heldout: HeldOutImages, reference: ReferenceFile, output: Output, judge: ClassifierFile = ""
) -> None:
    """The real-vs-real baseline: the same metrics of held-out images, which no generator is expected to beat."""
    from stablevelocity.evaluation.stages import evaluate_real_images

    with damaged_put_aside(study.parent):
        evaluate_real_images(load_study(study).evaluation, _path(judge), reference, heldout, output)


@app.command()
def sweep(
    study: StudyFile,
    run: RunName,
    weights: Annotated[Path, typer.Option(help="its last weights")],
    autoencoder: AutoencoderFile,
    reference: ReferenceFile,
    output: Output,
    images_output: Annotated[Path, typer.Option(help="similarity to the long run, image by image")],
    judge: ClassifierFile = "",
    processes: Annotated[int, typer.Option(min=1, help="the numbers do not depend on it")] = 1,
) -> None:
    """Few-step and same-noise study of a run: every solver, StableVS and its control arm."""
    from stablevelocity.evaluation.sweep_stage import run_sweep

    loaded = load_study(study)
    run_of(loaded, run)
    files = (weights, autoencoder, _path(judge), reference, output, images_output)
    run_sweep(loaded, run, *files, processes)


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


def _path(text: str) -> Path | None:
    return Path(text) if text else None
