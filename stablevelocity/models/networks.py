"""Networks of runs: built from a run's settings, loaded from its weight files."""

from pathlib import Path
from typing import Any

from stablevelocity.errors import UserError
from stablevelocity.models.sit import SiT, build_sit
from stablevelocity.models.weight_files import check_finite, load_tensors, reading_weights
from stablevelocity.study import Run


def build_network(run: Run, shape: tuple[int, ...], num_classes: int, feature_width: int | None) -> SiT:
    """The SiT of a run for latents of `shape` (c, h, w); projector and class token only where the run uses them.

    `feature_width` is the width of the encoder's tokens, None for runs without encoder.
    """
    model, alignment = run.training.model, run.alignment
    if (alignment or run.class_token) and feature_width is None:
        raise UserError(f"{run.name}: alignment needs the encoder's features (--features)")
    shared: dict[str, Any] = {
        "input_size": shape[1],
        "in_channels": shape[0],
        "num_classes": num_classes,
        "projector_dims": (feature_width,) if alignment else (),
        "projector": alignment.projector if alignment else "mlp",
        "projector_width": model.projector_width,
        "class_dim": feature_width if run.class_token else None,
        "gradient_checkpointing": run.training.gradient_checkpointing,
    }
    if model.name is not None:
        return build_sit(model.name, encoder_depth=model.encoder_depth, **shared)
    sizes = {"depth": model.depth, "width": model.width, "heads": model.heads, "patch_size": model.patch}
    return SiT(encoder_depth=model.encoder_depth or 2, **sizes, **shared)


def load_network(path: Path | str) -> tuple[SiT, dict[str, Any]]:
    """(network in evaluation mode, what the file says of itself) of a weight file of `Trainer.export`.

    `info` has kind ("ema"), step, run (settings), latents (autoencoder and scale), shape, num_classes.
    Raises UserError when the file is no such file, or does not say which kind of weights it holds, or holds NaN.
    """
    path = Path(path)
    tensors, info = load_tensors(path)
    if info.get("kind") not in ("ema", "raw"):
        raise UserError(f"{path}: does not say whether it holds raw or EMA weights; expected a file of a training run")
    check_finite(tensors, path)
    with reading_weights(path, "weights of the run that it names"):
        run = Run.model_validate(info["run"])
        network = build_network(run, tuple(info["shape"]), info["num_classes"], info["feature_width"])
        network.load_state_dict(tensors)
    return network.eval().requires_grad_(False), info
