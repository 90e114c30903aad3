"""Tensors and what they are, in one safetensors file: weights of networks, states of training runs."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write

CHECKSUM = "sha256"


def save_tensors(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Write tensors and a JSON-able `info` as one file, with their checksum, that is either whole or absent."""
    try:
        with atomic_write(path) as temporary:
            contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            text = json.dumps({**info, CHECKSUM: _checksum(contiguous, info)})
            save_file(contiguous, temporary, {"info": text})
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be written ({why}); nothing before it is lost") from error


def load_tensors(path: Path, *, checksum: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, info) of a file of `save_tensors`. Raises UserError when it is not whole, or no such file.

    With `checksum` it must have one; weights that come from elsewhere need not.
    """
    with reading_weights(path):
        with safe_open(path, "pt") as file:
            info = dict(json.loads((file.metadata() or {}).get("info", "{}")))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if (checksum or CHECKSUM in info) and info.pop(CHECKSUM) != _checksum(tensors, info):
            raise ValueError("differs from its checksum")
    return tensors, info


def read_info(path: Path) -> dict[str, Any]:
    """What a file of `save_tensors` says of itself; its tensors are not read."""
    with reading_weights(path), safe_open(path, "pt") as file:
        return json.loads((file.metadata() or {}).get("info", "{}"))


def _checksum(tensors: dict[str, Tensor], info: dict[str, Any]) -> str:
    """Of names, types, shapes, bytes and `info`."""
    digest = hashlib.sha256(json.dumps(info, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def reading_weights(source: Path | str, what: str = "weights in safetensors") -> Iterator[None]:
    """What is raised inside because `source` is absent, damaged or holds other weights, as one line that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{error.filename or source}: no such file; expected {what}") from None
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{source}: holds no {what}, or is not whole ({type(error).__name__}: {reason})") from None


def check_finite(tensors: dict[str, Tensor], source: Path | str) -> None:
    """Refuse weights of `source` that are NaN or infinite, or mere shapes, in one line."""
    shapes = [name for name, tensor in tensors.items() if tensor.is_meta]
    if shapes:
        raise UserError(f"{source}: its tensor {shapes[0]} has no data; it was saved from the meta device")
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise UserError(f"{source}: its weights are NaN or infinite in {bad[0]}{more}")
