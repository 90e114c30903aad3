"""Verbs of pretrained models. Heavy imports happen in the verb."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from stablevelocity.cli.options import Output, OutputFolder, StudyFile, optional
from stablevelocity.errors import UserError
from stablevelocity.study import Study
from stablevelocity.study.pretrained_settings import Pretrained

app = typer.Typer()

PromptFile = Annotated[Path, typer.Option("--prompts")]
FamilyName = Annotated[Literal["sd35", "flux", "qwen-image", "wan22"], typer.Option("--family")]


def _weights_are_there(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    """Of `--family` and `--folder`, before any other option is looked at: without weights nothing else matters."""
    from stablevelocity.pretrained.families import family_named

    given = {**context.params, parameter.name: value}
    # Whichever comes second knows both.
    if {"family", "folder"} <= given.keys() and not context.resilient_parsing:
        family_named(given["family"]).locate(given["folder"])
    return value


@app.command()
def generate(
    family: Annotated[
        str,
        typer.Option("--family", help="sd35, flux, qwen-image or wan22", is_eager=True, callback=_weights_are_there),
    ],
    prompt_file: Annotated[Path, typer.Option("--prompts", help="GenEval metadata or T2V-CompBench prompt file")],
    output: OutputFolder,
    arm: Annotated[list[str], typer.Option(help="such as euler-long or euler-stablevs; repeat for several")],
    folder: Annotated[
        Path | None,
        typer.Option(help="pipeline folder; none: the hub's cache", is_eager=True, callback=_weights_are_there),
    ] = None,
    category: Annotated[str, typer.Option(help="category of a T2V-CompBench file")] = "consistent_attr",
    images: Annotated[int, typer.Option(min=1, help="pictures per prompt")] = 4,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    batch: Annotated[int, typer.Option(min=1, help="pictures per call of the pipeline")] = 1,
    shard: Annotated[int, typer.Option(min=0, help="counted from 0: this job's share of the prompts")] = 0,
    shards: Annotated[int, typer.Option(min=1)] = 1,
    xi: Annotated[float, typer.Option(min=0, max=1)] = 0.85,
    low_steps: Annotated[int, typer.Option(min=1)] = 9,
    noise_factor: Annotated[float, typer.Option(min=0, max=1)] = 0.0,
    device: Annotated[
        str | None, typer.Option(help="such as cuda:1; none: a free one of those there are, or cpu")
    ] = None,
    offload: Literal["none", "model", "sequential"] = "none",
) -> None:
    """Prompts x seeds x arms of a large model, in the benchmarks' folder layouts; again to go on where it stopped."""
    from stablevelocity.files import write_json
    from stablevelocity.pretrained import generate as library
    from stablevelocity.pretrained.families import family_named
    from stablevelocity.pretrained.prompts import read_benchmark
    from stablevelocity.pretrained.stages import own_device, source_of

    chosen = family_named(family)
    arms = {name: chosen.arm(name, xi=xi, low_steps=low_steps, noise_factor=noise_factor) for name in arm}
    wanted = read_benchmark(family, prompt_file, category)
    library.check_share(wanted, shard, shards)
    source = source_of(chosen, folder, checksums=False)
    with own_device(shard, device) as place:
        pipeline = library.prepare(chosen.load(folder), place, offload)
        for name, sampler in arms.items():
            timings = library.generate(
                chosen,
                pipeline,
                sampler,
                wanted,
                output / name,
                images=images,
                seed=seed,
                batch=batch,
                shard=shard,
                shards=shards,
                source=source,
            )
            took = library.total(timings)
            write_json(output / name / f"timing-{shard:05d}.json", vars(took))
            each = [value / took.pictures for value in (took.end_to_end, took.denoising, took.low_regime)]
            typer.echo(
                f"{name}: {took.pictures} pictures of {took.steps} steps ({took.low_steps} below xi); seconds each: "
                f"{each[0]:.2f} end to end, {each[1]:.2f} denoising, {each[2]:.2f} low regime"
            )


@app.command()
def geneval(
    pictures: Annotated[Path, typer.Option(help="folder in GenEval's layout, such as out/euler-stablevs")],
    output: Output,
    detector: Annotated[str | None, typer.Option(help="Mask2Former: folder or hub id; none: GenEval's")] = None,
    clip: Annotated[str | None, typer.Option(help="CLIP: folder or hub id; none: GenEval's")] = None,
    device: str = "cpu",
) -> None:
    """Score a folder of images by GenEval's protocol with Mask2Former and CLIP; one CSV row per image."""
    from stablevelocity.files import write_csv
    from stablevelocity.pretrained.benchmarks import geneval as protocol
    from stablevelocity.pretrained.benchmarks.geneval_detector import CLIP, DETECTOR, load_detector

    scores = protocol.score_folder(pictures, load_detector(detector or DETECTOR, clip or CLIP, device))
    write_csv(output, scores)
    for task, value in protocol.summary(scores).items():
        typer.echo(f"{task}: {value:.4f}")


@app.command()
def prompts(study: StudyFile, family: FamilyName, output: Output) -> None:
    """Write the prompts of a family's benchmark."""
    from stablevelocity.pretrained.stages import write_prompt_file

    write_prompt_file(_settings(study, family), family, output)


@app.command()
def tiny_model(
    study: StudyFile,
    family: FamilyName,
    output: Annotated[Path, typer.Option(help="training.json of the pipeline folder")],
    autoencoder: Annotated[Path | None, typer.Option(parser=optional, help="training.json to take it from")] = None,
) -> None:
    """Train a tiny model of a family's real classes on captioned digits."""
    from stablevelocity.pretrained.stages import train_tiny_model

    _set_threads()
    train_tiny_model(_settings(study, family), family, autoencoder and autoencoder.parent, output)


@app.command()
def generate_arms(
    study: StudyFile,
    family: FamilyName,
    prompt_file: PromptFile,
    shard: Annotated[int, typer.Option(min=0, help="counted from 0")],
    output: Output,
    model: Annotated[Path | None, typer.Option(parser=optional, help="training.json of a tiny pipeline")] = None,
    device: str | None = None,
) -> None:
    """Every arm of a family on one share of the prompts."""
    from stablevelocity.pretrained import stages

    _set_threads()
    stages.generate_arms(_settings(study, family), family, model and model.parent, prompt_file, shard, device, output)


@app.command()
def score_family(
    study: StudyFile,
    family: FamilyName,
    prompt_file: PromptFile,
    output: Output,
    pairs_output: Annotated[Path, typer.Option(help="differences between arms, picture by picture")],
    shards: Annotated[list[Path], typer.Argument()],
) -> None:
    """Benchmark scores, similarity to the long run and seconds of a family's arms."""
    from stablevelocity.pretrained import stages

    stages.score_family(_settings(study, family), family, prompt_file, shards, output, pairs_output)


@app.command()
def compare_videos(
    study: StudyFile,
    family: FamilyName,
    prompt_file: PromptFile,
    shard: Annotated[Path, typer.Option(help="any shard's timings; the arms' folders lie beside it")],
    video: Annotated[Path, typer.Option(help="mp4 file")],
    preview: Annotated[Path, typer.Option(help="gif file")],
) -> None:
    """Some videos of a family side by side, a column per arm: an mp4 and an animated preview."""
    from stablevelocity.pretrained import stages

    stages.compare_videos(_settings(study, family), family, prompt_file, shard, video, preview)


@app.command()
def judge_accuracy(output: Output) -> None:
    """The digit detector on real scenes: the ceiling of the tiny models' scores."""
    from stablevelocity.pretrained.stages import write_detector_accuracy

    write_detector_accuracy(output)


@app.command()
def scheduler_errors(study: StudyFile, output: Output) -> None:
    """Error of each scheduler against a 1,000-step solution on mixtures of known velocity."""
    from stablevelocity.pretrained.stages import write_scheduler_errors

    write_scheduler_errors(_settings(study), output)


def _set_threads() -> None:
    """As many as the job was given, on every machine: measured seconds are then those of the same effort."""
    import os

    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1").partition(",")[0]))


def _settings(study: Study, family: str | None = None) -> Pretrained:
    """The section of a study, which must have the family."""
    if study.pretrained is None:
        raise UserError(f"study {study.name!r} has no section pretrained")
    if family not in (None, *study.pretrained.families):
        families = ", ".join(study.pretrained.families)
        raise UserError(f"--family {family}: no such family in study {study.name!r}; there are {families}")
    return study.pretrained
