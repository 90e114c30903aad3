"""Verbs from images to latents and features, and of published weights. Heavy imports happen in the verb."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stablevelocity.cli.options import (
    AutoencoderFile,
    EncoderFile,
    File,
    HeldOutImages,
    ImageManifest,
    ImageShard,
    Output,
    Shards,
    StudyFile,
    TrainImages,
)
from stablevelocity.errors import UserError

app = typer.Typer()

Split = Annotated[Literal["train", "heldout"], typer.Option()]


@app.command()
def image_index(study: StudyFile, split: Split, output: Output) -> None:
    """List the images of a split, in their fixed order."""
    from stablevelocity.data.stages.images import write_image_index

    write_image_index(study.images, split, output)


@app.command()
def image_shard(
    study: StudyFile,
    index: File,
    shard: Annotated[int, typer.Option(min=0, help="counted from 0")],
    of: Annotated[int, typer.Option(min=1, help="number of shards")],
    output: Output,
) -> None:
    """Decode one slice of an index into a shard."""
    from stablevelocity.data.stages.images import write_image_shard

    if shard >= of:
        raise UserError(f"--shard {shard} --of {of}: expected 0 to {of - 1}")
    write_image_shard(study.images, index, shard, of, output)


@app.command()
def image_manifest(
    study: StudyFile,
    index: File,
    output: Output,
    corrupt: Annotated[Path, typer.Option(help="CSV of the files that cannot be read")],
    shards: Shards,
) -> None:
    """Check the shards of a split against its index, and describe them."""
    from stablevelocity.data.stages.images import write_image_manifest

    write_image_manifest(study.images, index, shards, output, corrupt)


@app.command()
def autoencoder(study: StudyFile, train: TrainImages, heldout: HeldOutImages, output: Output) -> None:
    """Train the autoencoder, or describe the pretrained one, with its held-out PSNR."""
    from stablevelocity.data.stages.latents import write_autoencoder

    write_autoencoder(study.autoencoder, train, heldout, output)


@app.command()
def latent_shard(images: ImageShard, autoencoder: AutoencoderFile, output: Output) -> None:
    """Encode one shard of images."""
    from stablevelocity.data.stages.latents import write_latent_shard

    write_latent_shard(images, autoencoder, output)


@app.command()
def latent_manifest(images: ImageManifest, autoencoder: AutoencoderFile, output: Output, shards: Shards) -> None:
    """Describe the shards of latents: counts, checksums, autoencoder, scale."""
    from stablevelocity.data.stages.manifests import write_latent_manifest

    write_latent_manifest(images, autoencoder, shards, output)


@app.command()
def encoder(study: StudyFile, train: TrainImages, heldout: HeldOutImages, output: Output) -> None:
    """Train the frozen encoder on the train split, or describe the pretrained one."""
    from stablevelocity.data.stages.features import write_encoder

    write_encoder(study.encoder, train, heldout, output)


@app.command()
def feature_shard(images: ImageShard, encoder: EncoderFile, output: Output) -> None:
    """Tokens of one shard of images by the frozen encoder."""
    from stablevelocity.data.stages.features import write_feature_shard

    write_feature_shard(images, encoder, output)


@app.command()
def feature_manifest(encoder: EncoderFile, output: Output, shards: Shards) -> None:
    """Describe the shards of features: counts, checksums, encoder."""
    from stablevelocity.data.stages.manifests import write_feature_manifest

    write_feature_manifest(encoder, shards, output)


@app.command()
def online_features(encoder: EncoderFile, images: ImageManifest, output: Output) -> None:
    """Describe features that are to be made at every step, in the place of stored ones."""
    from stablevelocity.data.stages.manifests import write_online_manifest

    write_online_manifest(encoder, images, output)


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="hub id (owner/name), encoder (dinov2-base ...), or cifar10")],
    revision: Annotated[str | None, typer.Option(help="commit; known for the paper's models")] = None,
    output: Annotated[Path | None, typer.Option(help="file of an encoder, folder of cifar10")] = None,
) -> None:
    """Fetch a pinned model or CIFAR-10: the one verb that uses the network."""
    from stablevelocity.cli.download import download as fetch

    typer.echo(fetch(name, revision=revision, output=output))


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="SiT, REPA or iREPA checkpoint, a file of torch.save")],
    output: Output,
    kind: Annotated[str, typer.Option(help="ema or raw; needed where the file does not say")] = "",
    reversed_time: Annotated[bool, typer.Option(help="for files of SiT itself, where t = 0 is noise")] = False,
    step: Annotated[int | None, typer.Option(min=0, help="training steps, where the file does not say")] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="of the label table; needed where 1,000 rows leave it open")
    ] = None,
) -> None:
    """Turn a published checkpoint into safetensors, once; no code in it is run."""
    from stablevelocity.training.import_weights import convert_checkpoint

    if kind not in ("", "ema", "raw"):
        raise UserError(f"--kind {kind}: expected ema or raw")
    which = kind or None
    run = convert_checkpoint(checkpoint, output, kind=which, reversed_time=reversed_time, step=step, classes=classes)
    typer.echo(f"{output}: {run.training.model.name}")


@app.command()
def convert_encoder(
    checkpoint: Annotated[Path, typer.Argument(help="encoder weights, a file of torch.save")],
    output: Output,
    part: Annotated[str, typer.Option(help="entry that holds them: target_encoder, state_dict, teacher ...")] = "",
    prefix: Annotated[str, typer.Option(help="what their names start with: module., backbone. ...")] = "",
) -> None:
    """Turn published encoder weights into safetensors, once; no code in the file is run."""
    from stablevelocity.training import import_weights as converting

    count = converting.convert_encoder(checkpoint, output, part=part or None, prefix=prefix)
    typer.echo(f"{output}: {count} tensors")
