"""Variance of a batch's gradient in the course of training, with the targets of CFM and of StableVM
(docs/paper.md#open-questions)."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from stablevelocity.data.latents import Latents
from stablevelocity.models.networks import build_network, load_network
from stablevelocity.models.sit import SiT
from stablevelocity.progress import Progress
from stablevelocity.study import Run
from stablevelocity.study.experiment_settings import GradientVariance
from stablevelocity.training.batches import BatchMaker, build_bank


def gradient_variance(settings: GradientVariance, weights: list[Path], latents: Path) -> pd.DataFrame:
    """At each file of EMA weights of one run, gradients of the velocity loss on batches that its training had not.

    Both targets are those of the same x_t: StableVM's noised as STF noises them, which is the same distribution.
    Columns step, objective, batch, squared_norm (of the batch's gradient), squared_deviation (from the mean over the
    batches, times n/(n - 1): its mean is the trace of the gradient's covariance, unbiased).
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset, rows = Latents(latents), []
    for file in weights:
        network, info = load_network(file)
        run = Run.model_validate(info["run"])
        default = build_network(run, dataset.shape, dataset.num_classes, info["feature_width"])
        names = [name for name, parameter in default.named_parameters() if parameter.requires_grad]
        trained = [network.to(device).get_parameter(name).requires_grad_(True) for name in names]
        progress = Progress(f"gradients {run.name} step {info['step']}", 2 * settings.batches, "batches")

        # Twice, so that no more than two gradients are in memory: draws and bank depend on the step alone.
        means: dict[str, Tensor] = {}
        for _, objective, gradient in _gradients(network, trained, run, settings, dataset, device, progress):
            means[objective] = means.get(objective, torch.zeros_like(gradient)) + gradient / settings.batches
        for number, objective, gradient in _gradients(network, trained, run, settings, dataset, device, progress):
            deviation = (gradient - means[objective]).square().sum() * settings.batches / (settings.batches - 1)
            rows.append((info["step"], objective, number, gradient.square().sum().item(), deviation.item()))
    table = pd.DataFrame(rows, columns=["step", "objective", "batch", "squared_norm", "squared_deviation"])
    return table.sort_values(["step", "objective", "batch"], ignore_index=True)


def _gradients(
    network: SiT,
    trained: list[Tensor],
    run: Run,
    settings: GradientVariance,
    dataset: Latents,
    device: torch.device,
    progress: Progress,
) -> Iterator[tuple[int, str, Tensor]]:
    """(batch, objective, gradient in float64) of each batch with each target, for steps after the run's last."""
    makers = _makers(run, settings, dataset, device)
    for number in range(settings.batches):
        for objective, maker in makers.items():
            batch = maker.make(maker.read(run.training.steps + number))
            velocity = network(batch.x_t, batch.t, batch.labels, None).velocity
            loss = (velocity.float() - batch.target).square().mean()
            parts = torch.autograd.grad(loss, trained, allow_unused=True)  # the projector has none
            yield number, objective, torch.cat([part.flatten().double() for part in parts if part is not None])
        progress.update(1)


def _makers(run: Run, settings: GradientVariance, dataset: Latents, device: torch.device) -> dict[str, BatchMaker]:
    plain = {"alignment": None, "class_token": False}
    cfm = run.model_copy(update=plain | {"objective": "cfm", "stablevm": None})
    stable = run.model_copy(update=plain | {"objective": "stf", "stablevm": settings.stablevm})
    makers = {
        "cfm": BatchMaker(cfm, dataset, None, None, device, 0, 1),
        "stablevm": BatchMaker(stable, dataset, None, build_bank(stable, dataset, device), device, 0, 1),
    }
    makers["stablevm"].fill_bank()
    return makers
