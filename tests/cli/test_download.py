"""Only what is pinned is fetched. (What the hub answers is not tested: that needs the network.)"""

import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from stablevelocity.architectures import ENCODERS
from stablevelocity.cli.download import AUTOENCODERS, download
from stablevelocity.errors import UserError
from stablevelocity.study import load_study

CONFIG = Path(__file__).parents[2] / "config"


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


@pytest.mark.parametrize("name", ["stabilityai/sd-vae-ft-mse", "dinov2-base"])
def test_a_download_asks_the_hub_and_what_fails_is_one_line(name: str, tmp_path: Path) -> None:
    """A hub that knows nothing. Everything else runs offline, so the verb must say so in time that it does not."""
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    hub = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    output = ["--output", str(tmp_path / "weights.safetensors")] if "/" not in name else []
    done = subprocess.run(
        [str(Path(sys.executable).with_name("stablevelocity")), "download", name, *output],
        env={
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(tmp_path),
            "NO_PROXY": "*",
        },
        capture_output=True,
        text=True,
    )
    hub.shutdown()
    repository = name if "/" in name else ENCODERS[name].source
    assert any(repository in path for path in asked)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: download: {repository} at revision ")
