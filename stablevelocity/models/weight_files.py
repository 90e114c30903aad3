"""Tensors and what they are, in one safetensors file: weights of networks, states of training runs."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write


def save_tensors(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Write tensors and a JSON-able `info` as one file that is either whole or absent."""
    try:
        with atomic_write(path) as temporary:
            contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(contiguous, temporary, {"info": json.dumps(info)})
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be written ({why}); nothing before it is lost") from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, info) of a file of `save_tensors`."""
    with safe_open(path, "pt") as file:
        info = json.loads((file.metadata() or {}).get("info", "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, info  # noqa: SIM118 (not a dict)
