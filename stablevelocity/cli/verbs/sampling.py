"""Verbs of sets of generated images. Heavy imports happen in the verb."""

from pathlib import Path
from typing import Annotated

import typer

from stablevelocity.cli.options import AutoencoderFile, Output, Shards, StudyFile
from stablevelocity.errors import UserError
from stablevelocity.study import Study
from stablevelocity.study.settings import Sampler

app = typer.Typer()

SamplerName = Annotated[str, typer.Option("--sampler", help="a name of sampling.samplers")]
Weights = Annotated[Path, typer.Option("--weights", help="weights of a run")]


@app.command()
def sample(
    study: StudyFile,
    sampler: SamplerName,
    weights: Weights,
    autoencoder: AutoencoderFile,
    output: Output,
    shard: Annotated[int, typer.Option(min=0, help="counted from 0")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="the images do not depend on it")] = 1,
) -> None:
    """Generate one shard of a set of images, block by block; goes on where it was stopped."""
    from stablevelocity.sampling.stages import write_sample_shard

    write_sample_shard(weights, autoencoder, _sampler_of(study, sampler), study.sampling, shard, output, processes)


@app.command()
def sample_manifest(
    study: StudyFile,
    sampler: SamplerName,
    weights: Weights,
    autoencoder: AutoencoderFile,
    output: Output,
    shards: Shards,
) -> None:
    """Describe the shards of a set of images, and all that they depend on."""
    from stablevelocity.data.stages.manifests import write_sample_manifest

    write_sample_manifest(weights, autoencoder, _sampler_of(study, sampler), study.sampling, shards, output)


@app.command()
def export_images(
    samples: Annotated[Path, typer.Argument(help="manifest of a set of images")],
    npz: Annotated[Path | None, typer.Option(help="an .npz in ADM's layout (arr_0)")] = None,
    png: Annotated[Path | None, typer.Option(help="a folder of PNG files")] = None,
) -> None:
    """Copy a set of images into the forms that other tools read."""
    from stablevelocity.data.shards import ShardSet
    from stablevelocity.sampling.export import write_npz, write_png_folder

    if npz is None and png is None:
        raise UserError("export-images: neither --npz nor --png given; expected at least one")
    images = ShardSet(samples, "images")
    if npz is not None:
        write_npz(images, npz)
    if png is not None:
        write_png_folder(images, png)


def _sampler_of(study: Study, name: str) -> Sampler:
    if name not in study.sampling.samplers:
        raise UserError(f"--sampler {name}: no such sampler; there are {', '.join(study.sampling.samplers)}")
    return study.sampler(name)
