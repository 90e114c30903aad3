"""Features made at every step are the stored ones, up to the half precision of the disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stablevelocity.data.shards import write_manifest, write_shard
from stablevelocity.data.stages.features import write_feature_shard
from stablevelocity.data.stages.manifests import write_feature_manifest, write_online_manifest
from stablevelocity.errors import UserError
from stablevelocity.files import write_json
from stablevelocity.models.digits import build_digits_vit, save_digits_vit
from stablevelocity.models.encoders import load_encoder
from stablevelocity.training.features import OnlineFeatures, StoredFeatures, open_features


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 images in two shards, an untrained digits-vit, its stored and its online features."""
    root = tmp_path_factory.mktemp("features")
    torch.manual_seed(0)
    model = build_digits_vit(side=16, patch=4, width=16, depth=1, heads=2, classes=10)
    save_digits_vit(model, root / "encoder")
    identity = load_encoder("digits-vit", root / "encoder", grid=4).identity
    description = {"name": "digits-vit", "path": str(root / "encoder"), "grid": 4, "identity": identity}
    write_json(root / "encoder.json", description)
    images = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3)).astype(np.uint8)
    shards, stored = [], []
    for k, part in enumerate((images[:13], images[13:])):
        shards.append(root / "images" / f"train-{k:05d}.safetensors")
        write_shard(shards[-1], {"images": part, "labels": np.zeros(len(part), np.int64)})
        stored.append(root / "stored" / f"train-{k:05d}.safetensors")
        write_feature_shard(shards[-1], root / "encoder.json", stored[-1])
    write_manifest(root / "images" / "train.json", shards)
    write_feature_manifest(root / "encoder.json", stored, root / "stored" / "train.json")
    write_online_manifest(root / "encoder.json", root / "images" / "train.json", root / "online" / "train.json")
    return root


def test_online_and_stored_features_agree_row_by_row(folder: Path) -> None:
    stored = open_features(folder / "stored" / "train.json", 30, 4)
    online = open_features(folder / "online" / "train.json", 30, 4)
    assert isinstance(stored, StoredFeatures)
    assert isinstance(online, OnlineFeatures)
    assert (stored.width, stored.encoder) == (online.width, online.encoder)
    for rows in (torch.tensor([29, 0, 13, 0]), torch.tensor([12, 5])):
        # Half precision keeps 11 bits: 5e-4 of values up to about 4.
        ours, theirs = (each.tokens(each.read(rows, class_token=True)) for each in (online, stored))
        for found, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(found, expected.float(), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["stored", "online"])
def test_features_of_other_images_or_another_grid_are_refused(folder: Path, kind: str) -> None:
    with pytest.raises(UserError, match="30 rows, but there are 31 latents"):
        open_features(folder / kind / "train.json", 31, 4)
    with pytest.raises(UserError, match="gives 16 tokens, but the network has 8 x 8"):
        open_features(folder / kind / "train.json", 30, 8)


def test_online_features_of_exchanged_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    """The run's identity holds the encoder's hash, so other weights under the same name must not pass."""
    file = folder / "encoder" / "model.safetensors"
    before = file.read_bytes()
    state = load_file(file)
    save_file({name: value + 1e-3 for name, value in state.items()}, file)
    with pytest.raises(UserError, match="but the weights are digits-vit:sha256"):
        open_features(folder / "online" / "train.json", 30, 4)
    file.write_bytes(before)
    open_features(folder / "online" / "train.json", 30, 4)


def test_an_encoder_without_class_token_cannot_serve_reg(folder: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "train-00000.safetensors", {"tokens": np.zeros((30, 16, 8), np.float16)})
    write_manifest(tmp_path / "train.json", [tmp_path / "train-00000.safetensors"], encoder="ijepa-huge")
    with pytest.raises(UserError, match="no class token"):
        open_features(tmp_path / "train.json", 30, 4).read(torch.tensor([0]), class_token=True)
