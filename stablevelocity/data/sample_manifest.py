"""The manifest of a set of generated images. Apart from the drawing: torch and diffusers take seconds to import."""

from pathlib import Path

from stablevelocity.data.shards import write_manifest
from stablevelocity.files import read_json
from stablevelocity.settings import Sampler, Sampling


def write_sample_manifest(
    weights: Path, autoencoder: Path, sampler: Sampler, sampling: Sampling, shards: list[Path], output: Path
) -> None:
    """Describe a set: shards with checksums, and all that the images depend on, in words."""
    description = read_json(autoencoder)
    write_manifest(
        output,
        shards,
        weights=str(weights),
        decoder=description["decoder"],
        decoder_revision=description["decoder_revision"],
        scale=description["scale"],
        sampler=sampler.model_dump(mode="json"),
        **sampling.model_dump(mode="json", include={"seed", "block", "precision"}),
    )
