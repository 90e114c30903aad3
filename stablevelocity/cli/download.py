"""The one place that reaches for the network: `stablevelocity download`. Everything else runs offline.

What comes from the hub is pinned to a revision, so that two machines get the same bytes.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from stablevelocity.architectures import ENCODERS
from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write, sha256

# The autoencoders of the paper's protocol (docs/paper.md#imagenet) and their revisions.
AUTOENCODERS = {
    "stabilityai/sd-vae-ft-mse": "31f26fdeee1355a5c34592e401dd41e45d25a493",
    "stabilityai/sd-vae-ft-ema": "f04b2c4b98319346dad8c65879f680b1997b204a",
}


def download(name: str, *, revision: str | None = None, output: Path | None = None) -> Path:
    """Fetch one thing and say where it lies: "cifar10" (into the folder `output`), an encoder of the registry (its
    weights become the file `output`), or a hub id "owner/name" (into the hub's cache).

    `revision` (a commit) may be left out where this package knows a pin. Raises UserError when none is known, when
    `output` is missing, or the file is not the pinned one.
    """
    if name == "cifar10":
        from torchvision.datasets import CIFAR10

        folder = _needed(output, name)
        CIFAR10(str(folder), download=True)
        return folder
    if name in ENCODERS:
        return _encoder(name, revision, _needed(output, name))
    if name.count("/") != 1:
        raise UserError(f"download: {name!r} given, expected cifar10, a hub id (owner/name), or {', '.join(ENCODERS)}")
    from huggingface_hub import snapshot_download

    pinned = _pinned(name, revision or AUTOENCODERS.get(name))
    patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
    with _failures_named(name, pinned):
        return Path(snapshot_download(name, revision=pinned, allow_patterns=patterns))


def _encoder(name: str, revision: str | None, output: Path) -> Path:
    """The weights of a pinned encoder, copied to `output` when they are the pinned ones."""
    spec = ENCODERS[name]
    if not spec.source.startswith("timm/"):
        raise UserError(f"download: {name} is not on the hub ({spec.source}; see `stablevelocity convert-encoder`)")
    pinned = _pinned(name, revision or (spec.pin and spec.pin.revision))
    from huggingface_hub import hf_hub_download

    with _failures_named(spec.source, pinned):
        cached = Path(hf_hub_download(spec.source, "model.safetensors", revision=pinned))
    if spec.pin is not None and pinned == spec.pin.revision and sha256(cached) != spec.pin.sha256:
        raise UserError(f"download: {name} at {pinned} is not the file it was (SHA-256 {sha256(cached)[:16]}...)")
    with atomic_write(output) as temporary:
        shutil.copyfile(cached, temporary)
    return output


@contextlib.contextmanager
def _failures_named(name: str, revision: str) -> Iterator[None]:
    """Whatever the hub's library raises (no network, no such repository, a gate) as one line."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__ or error
        said = " ".join(str(cause).split()) or type(cause).__name__
        raise UserError(f"download: {name} at revision {revision}: {said}") from error


def _pinned(name: str, revision: str | None) -> str:
    if revision is None:
        raise UserError(f"download: {name} has no known revision; give --revision <commit>")
    return revision


def _needed(output: Path | None, name: str) -> Path:
    if output is None:
        raise UserError(f"download: {name} needs --output")
    return output
