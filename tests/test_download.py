"""Only what is pinned is fetched. (The fetching itself is not tested: it needs the network.)"""

import re
from pathlib import Path

import pytest

from stablevelocity.download import AUTOENCODERS, download
from stablevelocity.errors import UserError
from stablevelocity.models.encoders import ENCODERS
from stablevelocity.study import load_study

CONFIG = Path(__file__).parent.parent / "config"


@pytest.mark.parametrize(
    "name,output,words",
    [
        ("someone/something", None, "no known revision"),
        ("mae-base", Path("x.safetensors"), "no known revision"),
        ("dinov2-base", None, "needs --output"),
        ("cifar10", None, "needs --output"),
        ("mocov3-base", Path("x.safetensors"), "not on the hub"),
        ("dinov9", None, "dinov2-base"),
    ],
)
def test_what_is_not_pinned_or_has_no_place_is_refused(name: str, output: Path | None, words: str) -> None:
    with pytest.raises(UserError, match=words):
        download(name, output=output)


def test_every_pin_is_a_whole_commit_and_a_whole_hash() -> None:
    commits = [*AUTOENCODERS.values(), *(spec.pin.revision for spec in ENCODERS.values() if spec.pin)]
    assert all(re.fullmatch(r"[0-9a-f]{40}", commit) for commit in commits)
    assert all(re.fullmatch(r"[0-9a-f]{64}", spec.pin.sha256) for spec in ENCODERS.values() if spec.pin)


def test_the_imagenet_study_names_the_pinned_autoencoders() -> None:
    autoencoder = load_study(CONFIG / "imagenet256.yaml").autoencoder
    assert autoencoder.revision == AUTOENCODERS[str(autoencoder.pretrained)]
    assert autoencoder.decoder_revision == AUTOENCODERS[str(autoencoder.decoder)]
