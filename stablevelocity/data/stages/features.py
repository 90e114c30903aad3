"""The frozen encoder of a study, and the tokens it gives of every training image. One function per job."""

from pathlib import Path

import numpy as np
import torch

from stablevelocity.architectures import DIGITS_VIT, DIGITS_VITS
from stablevelocity.data.encoding import encode_shard
from stablevelocity.data.shards import ShardSet, read_shard
from stablevelocity.errors import UserError
from stablevelocity.files import read_json, write_json
from stablevelocity.models.digits import classify, save_digits_vit, train_classifier_vit, train_unlabelled_vit
from stablevelocity.models.encoders import Encoder as FrozenEncoder
from stablevelocity.models.encoders import encode_tokens, feature_bytes, load_encoder, neighbour_accuracy
from stablevelocity.progress import log
from stablevelocity.study.settings import Encoder


def write_encoder(settings: Encoder, train: Path, heldout: Path, output: Path) -> None:
    """Train one of the small encoders beside `output`, or take a pretrained one; describe it (JSON).

    The description says where the weights are and what they are; for one trained here also its accuracy on held-out
    images, that of its head (`held_out_accuracy`, with labels) and that of nearest neighbours (`neighbour_accuracy`).
    """
    description: dict = {"name": settings.name, "grid": settings.grid}
    here = settings.name in DIGITS_VITS
    path = output.with_suffix("") if here else settings.path
    if path is None:
        raise UserError(f"encoder.path: {settings.name} needs the file or folder of its weights")
    if here:
        both = [ShardSet(manifest, "images", "labels") for manifest in (train, heldout)]
        (images, labels), (others, other_labels) = ((part.all("images"), part.all("labels")) for part in both)
        if settings.name == DIGITS_VIT:
            model = train_classifier_vit(images, labels, steps=settings.steps, seed=settings.seed)
            description["held_out_accuracy"] = float((classify(model, others).argmax(1) == other_labels).mean())
        else:
            model = train_unlabelled_vit(images, steps=settings.steps, seed=settings.seed)
        save_digits_vit(model, path)
    encoder = load_encoder(settings.name, path, grid=settings.grid)
    if here:
        tokens, others = encode_tokens(encoder, images)[0], encode_tokens(encoder, others)[0]
        description["neighbour_accuracy"] = neighbour_accuracy(tokens, labels, others, other_labels)
    description |= {"path": str(path), "identity": encoder.identity, "width": encoder.width}
    write_json(output, {**description, "tokens": encoder.grid**2})


def open_encoder(encoder: Path) -> FrozenEncoder:
    """The encoder of a description, on the device."""
    description = read_json(encoder, "name", "path", "grid")
    model = load_encoder(description["name"], Path(description["path"]), grid=description["grid"])
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return model


def write_feature_shard(images: Path, encoder: Path, output: Path) -> None:
    """Tokens (n, tokens, width) and class token (n, width), half precision, of one shard of images."""
    model, pixels = open_encoder(encoder), read_shard(images, "images")["images"]
    size = feature_bytes(model.width, model.grid, len(pixels)) / 2**20
    log.info(f"features {output.name}: {len(pixels)} images will take {size:,.1f} MiB")
    shapes: dict[str, tuple[int, ...]] = {"tokens": (model.grid**2, model.width)}
    if model.has_class_token:
        shapes["class_token"] = (model.width,)
    encode_shard(f"features {output.name}", pixels, lambda part: named_tokens(model, part), shapes, output)


def named_tokens(model: FrozenEncoder, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of a shard of features, for some images."""
    tokens, class_token = encode_tokens(model, pixels)
    return {"tokens": tokens} if class_token is None else {"tokens": tokens, "class_token": class_token}
