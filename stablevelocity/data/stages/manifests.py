"""What describes a set of latents, features or generated images. Apart from their making, which imports torch."""

import os
from pathlib import Path

from stablevelocity.data.shards import write_manifest
from stablevelocity.files import read_json, write_json
from stablevelocity.study.settings import Sampler, Sampling

LATENTS = ("autoencoder", "revision", "identity", "scale")  # of an autoencoder's description


def write_latent_manifest(images: Path, autoencoder: Path, shards: list[Path], output: Path) -> None:
    """Describe shards of latents: counts and checksums, the autoencoder's identity, scale, classes."""
    source, description = read_json(images, "num_classes", "class_names"), read_json(autoencoder, *LATENTS)
    kept = {key: description[key] for key in LATENTS}
    write_manifest(output, shards, **kept, num_classes=source["num_classes"], class_names=source["class_names"])


def write_feature_manifest(encoder: Path, shards: list[Path], output: Path) -> None:
    """Describe shards of features: counts, checksums and the encoder's identity."""
    description = read_json(encoder, "identity")
    write_manifest(output, shards, encoder=description["identity"])


def write_online_manifest(encoder: Path, images: Path, output: Path) -> None:
    """Instead of features: which encoder is to be run at every step, on which images (relative to `output`)."""
    description = read_json(encoder, "identity", "name", "path", "grid")
    which = {"encoder": description["identity"], **{key: description[key] for key in ("name", "path", "grid")}}
    write_json(output, {**which, "images": os.path.relpath(images, output.parent)})


def write_sample_manifest(
    weights: Path, autoencoder: Path, sampler: Sampler, sampling: Sampling, shards: list[Path], output: Path
) -> None:
    """Describe a set: shards with checksums, and all that the images depend on, in words."""
    description = read_json(autoencoder, "decoder", "decoder_revision", "scale")
    write_manifest(
        output,
        shards,
        weights=str(weights),
        decoder=description["decoder"],
        decoder_revision=description["decoder_revision"],
        scale=description["scale"],
        sampler=sampler.model_dump(mode="json"),
        **sampling.model_dump(mode="json", include={"seed", "block", "precision", "compile"}),
    )
