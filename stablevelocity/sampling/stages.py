"""The workflow's sampling job: one shard of a set of images."""

from pathlib import Path

import torch

from stablevelocity.errors import UserError
from stablevelocity.files import read_json, sha256
from stablevelocity.models.autoencoders import autoencoder_identity, load_autoencoder
from stablevelocity.models.networks import load_network
from stablevelocity.sampling.generate import BlockSampler, generate_shard
from stablevelocity.study.settings import Sampler, Sampling


def open_sampler(weights: Path, autoencoder: Path, sampler: Sampler, sampling: Sampling) -> tuple[BlockSampler, str]:
    """(sampler of a trained network with its decoder, identity of both) from the weights and the description.

    Raises UserError when the weights were trained on latents of another autoencoder or scale.
    """
    model, info = load_network(weights)
    if sampler.guidance > 1 and not info.get("null_class", True):
        raise UserError(f"{weights}: trained without label dropout, so it cannot be sampled with guidance")
    description = read_json(autoencoder, "identity", "scale", "decoder", "decoder_revision")
    trained, given = info["latents"], {key: description[key] for key in ("identity", "scale")}
    if {key: trained[key] for key in given} != given:
        raise UserError(
            f"{weights}: trained on latents of {trained['identity']} at scale {trained['scale']}, but {autoencoder} "
            f"describes {given['identity']} at scale {given['scale']}"
        )
    decoder = load_autoencoder(description["decoder"], description["decoder_revision"])
    seed = info["run"]["seed"] if sampling.seed == "by_run" else sampling.seed
    scale = float(description["scale"])
    blocks = BlockSampler(model, decoder, scale, sampler, seed, sampling.block, sampling.precision)
    decoder_name = autoencoder_identity(description["decoder"], description["decoder_revision"])
    identity = f"{sha256(weights)}, {given['identity']}, {decoder_name}"
    if sampling.compile:
        model.compile_blocks()
        identity += ", compiled"
    return blocks.to("cuda" if torch.cuda.is_available() else "cpu"), identity


def write_sample_shard(
    weights: Path, autoencoder: Path, sampler: Sampler, sampling: Sampling, shard: int, output: Path, processes: int = 1
) -> None:
    """Make one of the `sampling.shards` shards of a set."""
    blocks, identity = open_sampler(weights, autoencoder, sampler, sampling)
    which = {"images": sampling.images, "shard": shard, "shards": sampling.shards}
    generate_shard(blocks, output, **which, processes=processes, weights=identity)
