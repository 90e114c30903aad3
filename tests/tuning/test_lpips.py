"""LPIPS from a weights file made here: torchvision's AlexNet with random features, its classifier empty."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics
from torch.nn import functional as F
from torchvision.models import alexnet
from typer.testing import CliRunner

from stablevelocity.cli.main import app
from stablevelocity.evaluation import similarity
from stablevelocity.files import sha256
from stablevelocity.pretrained.tiny import TINY_FAMILIES

#: Convolutions of AlexNet: number in `features`, stride, padding, and whether pooling comes before.
LAYERS = [(0, 4, 2, False), (3, 1, 2, True), (6, 1, 1, True), (8, 1, 1, False), (10, 1, 1, False)]


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """In torch's hub cache under a name that ends in its own checksum, and under the one that torchvision loads."""
    torch.manual_seed(0)
    values = alexnet(weights=None).state_dict()
    # One number for all of a classifier's layer: LPIPS does not use it, and so the file is small.
    values = {key: v if key.startswith("features") else torch.zeros(1).expand(v.shape) for key, v in values.items()}
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    hub.mkdir(parents=True)
    torch.save(values, hub / similarity.LPIPS_BACKBONE)
    name = f"alexnet-owt-{sha256(hub / similarity.LPIPS_BACKBONE)[:8]}.pth"
    (hub / name).symlink_to(hub / similarity.LPIPS_BACKBONE)
    monkeypatch.setattr(similarity, "LPIPS_BACKBONE", name)
    return values


def lpips(a, b, weights):
    """Zhang et al. 2018, eq. 1, of uint8 images (H, W, 3), with their published weights of the channels."""
    linear = torch.load(
        Path(torchmetrics.__file__).parent / "functional/image/lpips_models/alex.pth", map_location="cpu"
    )
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x = torch.from_numpy(np.stack([a, b])).double() / 127.5 - 1
    x = ((x - shift) / scale).permute(0, 3, 1, 2)
    distance = 0.0
    for layer, (number, stride, padding, pooled) in enumerate(LAYERS):
        kernel, bias = (weights[f"features.{number}.{part}"].double() for part in ("weight", "bias"))
        x = F.conv2d(F.max_pool2d(x, 3, 2) if pooled else x, kernel, bias, stride, padding).relu()
        unit = x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt()
        channels = (unit[0] - unit[1]).square().mean((1, 2))
        distance += float((channels * linear[f"lin{layer}.model.1.weight"].flatten()).sum())
    return distance


def tune(folder, out, *options):
    """The lines that it says, its arms, and its page."""
    words = ["tune", str(folder), "--prompt=a five", "--steps=4", "--calls=3", f"--output={out}", *options]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return (
        done.output.splitlines(),
        json.loads((out / "tuning.json").read_text())["arms"],
        (out / "page.html").read_text(),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    family, path = TINY_FAMILIES["sd35"], tmp_path_factory.mktemp("sd35")
    transformer = family.transformer()
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    family.save(transformer, family.autoencoder(), path)
    return path


def test_it_is_the_published_formula(weights):
    a = np.random.default_rng(0).integers(0, 256, (3, 64, 80, 3), dtype=np.uint8)
    b = np.random.default_rng(1).integers(0, 256, a.shape, dtype=np.uint8)
    b[2] = a[2]
    table = similarity.compare_images(a, b)
    expected = [lpips(x, y, weights) for x, y in zip(a, b, strict=True)]
    assert expected[0] > 1e-4 > 1e-12 > expected[2]
    np.testing.assert_allclose(table["lpips"], expected, rtol=1e-3, atol=1e-9)  # computed in float32


def test_tune_shows_it_where_its_weights_are(weights, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said, arms, page = tune(folder, tmp_path / "out", "--height=64", "--width=64")
    assert all(row["lpips"] > 0 for row in arms[1:])
    assert "<th>LPIPS</th>" in page
    assert f"<td>{arms[1]['lpips']:.3f}</td>" in page
    assert "LPIPS is left out" not in page + "".join(said)


@pytest.mark.parametrize(
    ("side", "reason"), [(64, "not in torch's hub cache"), (32, "64 pixels or more, these have 32")]
)
def test_tune_says_in_one_line_why_it_is_absent(folder, tmp_path, monkeypatch, side, reason):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    said, arms, page = tune(folder, tmp_path / "out", f"--height={side}", f"--width={side}")
    assert [reason in line for line in said if "LPIPS" in line] == [True]
    assert not any("lpips" in row for row in arms)
    assert "<th>LPIPS</th>" not in page
    assert page.count("LPIPS is left out") == 1
