"""Published checkpoints, pickled by torch, to safetensors: once, by an explicit command, with `weights_only=True`.

Two conventions of published SiT files are undone exactly, in the weights themselves:
- SiT (unlike REPA) has t = 0 at the noise. Features of 1 - t are a rotation of those of t, so the first time layer
  takes it up; the velocity changes sign.
- SiT has twice the output channels, the second half a variance that nothing uses; those rows are left out.
"""

import argparse
import math
import pickle
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from stablevelocity.architectures import PATCH_SIZES, SIZES
from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write
from stablevelocity.models.layers import FREQUENCY_FEATURES
from stablevelocity.models.networks import build_network
from stablevelocity.models.weight_files import check_finite, save_tensors
from stablevelocity.progress import log
from stablevelocity.study import Run
from stablevelocity.study.settings import Alignment, Model, Training

State = dict[str, Tensor]
AUTOENCODER = "stabilityai/sd-vae-ft-mse"  # whose latents published networks are trained on
WRAPPERS = ("module", "_orig_mod")  # of DDP and of torch.compile, in any order and number


def convert_checkpoint(
    source: Path,
    output: Path,
    *,
    kind: Literal["ema", "raw"] | None = None,
    reversed_time: bool = False,
    step: int | None = None,
    classes: int | None = None,
) -> Run:
    """Write the SiT, REPA or iREPA checkpoint `source` as a weight file that every later verb reads; return its run.

    Args:
        kind: which weights to take from a file with both `ema` and `model`; of a file with bare weights, what
            they are (the published ones are EMA). None: `ema` where it is there.
        reversed_time: True for files of SiT itself, whose t = 0 is noise.
        step: training steps behind the weights, where the file does not say.
        classes: of the labels; None: one less than the label table has rows, the last being the null class. A table
            of `classes` rows was trained without label dropout: samplers with guidance then refuse the weights.

    Raises UserError when the file is no such checkpoint, or does not say which kind of weights it holds, or whether
    1,000 labels are 1,000 classes.
    """
    content = read_torch_file(source)
    state, kind = _select(content, kind, source)
    model, shape, projector, feature_width = _architecture(state, source)
    state, num_classes, null_class = _label_table(state, classes, source)
    state = _without_variance(state, shape[0], model.patch)
    steps = content.get("steps") if step is None else step
    steps = steps if type(steps) is int else None
    run = Run(
        name=output.stem,
        arm=output.stem,
        seed=0,
        objective="cfm",
        stablevm=None,
        alignment=None if feature_width is None else Alignment(schedule="uniform", projector=projector),
        class_token=False,
        training=Training(model=model, seeds=[0], steps=max(1, steps or 1)),
    )
    _check_fit(state, run, shape, num_classes, feature_width, source)
    info = {
        "kind": kind,
        "step": steps,
        "run": run.model_dump(mode="json"),
        "hash": "",
        "latents": {"autoencoder": AUTOENCODER, "identity": AUTOENCODER, "scale": 0.18215},
        "shape": shape,
        "num_classes": num_classes,
        "null_class": null_class,
        "feature_width": feature_width,
        "converted_from": source.name,
    }
    save_tensors(output, reverse_time(state) if reversed_time else state, info)
    return run


def convert_encoder(source: Path, output: Path, *, part: str | None = None, prefix: str = "") -> int:
    """Write the encoder in `source` as safetensors; returns the number of tensors.

    `part` is the entry that holds the weights ("target_encoder" in I-JEPA, "state_dict" in MoCo-v3, "teacher" in
    DINO; None: the file itself), `prefix` what their names start with there ("module.",
    "module.momentum_encoder.", "backbone."); other tensors are left out.
    """
    content = read_torch_file(source)
    if part is not None:
        if not isinstance(content.get(part), dict):
            raise UserError(f"{source}: has no entry {part!r}; there are {_some(content)}")
        content = content[part]
    state = {}
    for name, value in content.items():
        if isinstance(value, Tensor) and str(name).startswith(prefix):
            kept = str(name)[len(prefix) :]
            if not kept.isprintable() or kept in ("", "__metadata__"):  # the last is safetensors' own
                raise UserError(f"{source}: its entry {_some([name])} cannot be named {kept!r} in safetensors")
            if value.layout != torch.strided or value.is_complex() or value.is_quantized:
                raise UserError(f"{source}: its entry {_some([name])} is no dense tensor of real numbers")
            state[kept] = value.detach().clone().contiguous()
    if not state:
        raise UserError(f"{source}: no tensor named {prefix}*; there are {_some(content)}")
    check_finite(state, source)
    with atomic_write(output) as temporary:
        save_file(state, temporary)
    return len(state)


def read_torch_file(path: Path) -> dict[str, Any]:
    """The dictionary in a file of `torch.save`, without running any code that the file may hold.

    Besides tensors and plain containers only `argparse.Namespace` is let in: trainers keep their options so.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"holds more than weights ({asked[1]})" if asked else "holds more than weights, or is damaged,"
        raise UserError(f"{path}: {what} and is not opened") from None
    except Exception as error:  # of damaged files: KeyError, EOFError, RuntimeError, ... from inside torch
        raise UserError(f"{path}: is not a file of torch.save ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, expected a dictionary of weights")
    return content


def _some(names: Iterable[Any], count: int = 5) -> str:
    """The first names of a list, in a line."""
    listed = [ascii(str(name))[1:-1][:60] for name in names]
    return ", ".join(listed[:count]) + (f" and {len(listed) - count} more" if len(listed) > count else "")


def _plain_name(name: Any) -> str:
    """Name of a tensor without its wrappers, an iREPA projector (`projectors.0.conv.weight`) as this project has it."""
    plain = ".".join(part for part in str(name).split(".") if part not in WRAPPERS)
    return re.sub(r"^(projectors\.\d+)\.conv\.", r"\1.", plain)


def _select(
    content: dict[str, Any], kind: Literal["ema", "raw"] | None, source: Path
) -> tuple[State, Literal["ema", "raw"]]:
    """(weights, what they are) of a file with bare weights, or with `ema` and `model` in a dictionary."""
    if {"pos_embed", "x_embedder.proj.weight"} & {_plain_name(name) for name in content}:
        if kind is None:
            raise UserError(f"{source}: does not say whether its weights are EMA or raw; give --kind ema or --kind raw")
        state = content
    else:
        kind = kind or "ema"
        entry = {"ema": "ema", "raw": "model"}[kind]
        if not isinstance(content.get(entry), dict):
            raise UserError(f"{source}: has no entry {entry!r}; there are {_some(content)}")
        state = content[entry]
    plain: State = {}
    for name, value in state.items():
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.layout != torch.strided:
            what = f"{value.dtype} tensor" if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"{source}: its entry {_some([name])} is a {what}, expected a tensor of numbers")
        if _plain_name(name) in plain:
            raise UserError(f"{source}: holds {_some([_plain_name(name)])} twice, with and without a wrapper's prefix")
        plain[_plain_name(name)] = value.detach().float().contiguous()
    check_finite(plain, source)
    return plain, kind


def _shape(state: State, name: str, dimensions: int, source: Path) -> tuple[int, ...]:
    if name not in state or state[name].ndim != dimensions or not state[name].numel():
        shape = f"has shape {tuple(state[name].shape)}, expected {dimensions} dimensions" if name in state else ""
        raise UserError(f"{source}: is not laid out as SiT: {name} {shape or 'is missing'}")
    return tuple(state[name].shape)


def _architecture(state: State, source: Path) -> tuple[Model, tuple[int, int, int], Literal["mlp", "conv"], int | None]:
    """(model, latent shape, kind of projector, encoder width or None), read off the shapes."""
    width, channels, patch, _ = _shape(state, "x_embedder.proj.weight", 4, source)
    tokens = _shape(state, "pos_embed", 3, source)[1]
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    sizes = [name for name, size in SIZES.items() if (size["depth"], size["width"]) == (depth, width)]
    if not sizes or patch not in PATCH_SIZES:
        raise UserError(f"{source}: depth {depth}, width {width}, patch {patch} is no published size of SiT")
    projector = "conv" if "projectors.0.weight" in state else "mlp"
    last = {"conv": ("projectors.0.weight", 4), "mlp": ("projectors.0.4.weight", 2)}[projector]
    projected = _shape(state, *last, source) if last[0] in state else None
    # Heads cannot be read off the shapes; the name stands for them.
    model = Model(
        name=f"SiT-{sizes[0]}/{patch}",
        depth=depth,
        width=width,
        patch=patch,
        heads=SIZES[sizes[0]]["heads"],
        encoder_depth=SIZES[sizes[0]]["encoder_depth"],
        projector_width=2048 if projected is None or projector == "conv" else projected[1],
    )
    side = math.isqrt(tokens) * patch
    return model, (channels, side, side), projector, None if projected is None else projected[0]


def _label_table(state: State, classes: int | None, source: Path) -> tuple[State, int, bool]:
    """(weights with a row for the null class, classes, whether that row was trained)."""
    name = "y_embedder.embedding_table.weight"
    rows, width = _shape(state, name, 2, source)
    if classes is None and rows == 1000:
        raise UserError(
            f"{source}: its label table has 1,000 rows; give --classes 1000 if it was trained without label dropout, "
            "or --classes 999 if the last row is the null class"
        )
    if classes is None and rows < 2:
        raise UserError(f"{source}: its label table has 1 row, expected one for the null class and one for each class")
    if classes is not None and classes not in (rows, rows - 1):
        raise UserError(f"{source}: --classes {classes}, but its label table has {rows:,} rows")
    if classes != rows:
        return state, rows - 1, True
    log.warning(f"{source}: trained without label dropout: its weights cannot be sampled with guidance")
    return state | {name: torch.cat([state[name], torch.zeros(1, width)])}, rows, False


def _without_variance(state: State, channels: int, patch: int) -> State:
    """Of 2 `channels` outputs per pixel, the first `channels`: the velocity."""
    names, rows = ("final_layer.linear.weight", "final_layer.linear.bias"), 2 * channels * patch * patch
    if any(name not in state or len(state[name]) != rows for name in names):
        return state
    kept = torch.arange(rows).reshape(patch * patch, 2 * channels)[:, :channels].flatten()
    return state | {name: state[name][kept].contiguous() for name in names}


def reverse_time(state: State) -> State:
    """Weights of the network v'(x, t) = -v(x, 1 - t), where v is that of `state`; exact to rounding.

    cos f(1 - t) = cos f cos ft + sin f sin ft and sin f(1 - t) = sin f cos ft - cos f sin ft, so the columns of
    the first time layer are rotated among themselves.
    """
    half = FREQUENCY_FEATURES // 2
    frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    cosine, sine = frequencies.cos(), frequencies.sin()
    of_cosine, of_sine = state["t_embedder.mlp.0.weight"].double().split(half, dim=1)
    rotated = torch.cat([of_cosine * cosine + of_sine * sine, of_cosine * sine - of_sine * cosine], dim=1)
    return state | {
        "t_embedder.mlp.0.weight": rotated.float(),
        "final_layer.linear.weight": -state["final_layer.linear.weight"],
        "final_layer.linear.bias": -state["final_layer.linear.bias"],
    }


def _check_fit(
    state: State, run: Run, shape: tuple[int, int, int], num_classes: int, feature_width: int | None, source: Path
) -> None:
    """Load strictly into the network that the file will be read as (on no device: only names and shapes)."""
    with torch.device("meta"):
        network = build_network(run, shape, num_classes, feature_width)
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{source}: does not fit {run.training.model.name} ({why})") from None
