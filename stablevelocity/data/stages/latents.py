"""From shards of images to shards of latents: the autoencoder of a study, and what it makes. One function per job."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from stablevelocity.data.encoding import encode_shard
from stablevelocity.data.shards import ShardSet, random_rows, read_shard
from stablevelocity.files import clear_safetensors_leftovers, read_json, write_json
from stablevelocity.models import autoencoders
from stablevelocity.study.settings import Autoencoder

PSNR_IMAGES = 2000


def write_autoencoder(settings: Autoencoder, train: Path, heldout: Path, output: Path) -> None:
    """Train an autoencoder on the images of `train` beside `output`, or take the pretrained one; describe it.

    The description (JSON) says where it is, its identity and scale, and its PSNR in dB on both splits.
    """
    images, held_out = ShardSet(train, "images"), ShardSet(heldout, "images")
    if settings.pretrained is None:
        clear_safetensors_leftovers(output.with_suffix(""))
        model = autoencoders.train_autoencoder(
            images.all("images"),
            **settings.model_dump(include={"widths", "channels", "steps", "batch", "lr", "kl_weight", "seed"}),
        )
        # Into the folder of the description, under its stem: data/autoencoder.json, data/autoencoder/.
        name, revision = str(output.with_suffix("")), None
        model.save_pretrained(name)
    else:
        name, revision = settings.pretrained, settings.revision
        model = autoencoders.load_autoencoder(name, revision)
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    write_json(
        output,
        {
            "autoencoder": name,
            "revision": revision,
            "identity": autoencoders.autoencoder_identity(name, revision),
            "scale": settings.scale or float(model.config["scaling_factor"]),
            "decoder": settings.decoder or name,
            "decoder_revision": settings.decoder_revision if settings.decoder else revision,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "psnr_train": _psnr(model, images),
            "psnr_held_out": _psnr(model, held_out),
        },
    )


def _psnr(model: autoencoders.AnyAutoencoder, images: ShardSet) -> float:
    return autoencoders.reconstruction_psnr(model, images.rows("images", random_rows(len(images), PSNR_IMAGES)))


def latent_encoder(autoencoder: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """What gives `mean` and `std` of images by the autoencoder of a description."""
    description = read_json(autoencoder, "autoencoder", "revision")
    model = autoencoders.load_autoencoder(description["autoencoder"], description["revision"])
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return lambda pixels: dict(zip(("mean", "std"), autoencoders.encode_images(model, pixels), strict=True))


def write_latent_shard(image_shard: Path, autoencoder: Path, output: Path) -> None:
    """Encode one shard of images into one shard of `mean`, `std` (half precision, unscaled) and `labels`."""
    encode, arrays = latent_encoder(autoencoder), read_shard(image_shard, "images", "labels")
    shapes = {name: values.shape[1:] for name, values in encode(arrays["images"][:1]).items()}
    encode_shard(f"latents {output.name}", arrays["images"], encode, shapes, output, labels=arrays["labels"])
