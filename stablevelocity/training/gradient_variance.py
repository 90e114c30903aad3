"""Variance of a batch's gradient in the course of training, with the targets of CFM and of StableVM
(docs/paper.md#open-questions)."""

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from stablevelocity.data.latents import Latents
from stablevelocity.models.networks import build_network, load_network
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
    data, rows = Latents(latents), []
    for file in weights:
        network, info = load_network(file)
        run = Run.model_validate(info["run"])
        makers = _makers(run, settings, data, device)
        default = build_network(run, data.shape, data.num_classes, info["feature_width"])
        names = [name for name, parameter in default.named_parameters() if parameter.requires_grad]
        trained = [network.to(device).get_parameter(name).requires_grad_(True) for name in names]
        gradients: dict[str, list[Tensor]] = {objective: [] for objective in makers}
        progress = Progress(f"gradients {run.name} step {info['step']}", settings.batches, "batches")
        for number in range(settings.batches):
            step = run.training.steps + number
            for objective, maker in makers.items():
                batch = maker.make(maker.read(step))
                output = network(batch.x_t, batch.t, batch.labels, None)
                loss = (output.velocity.float() - batch.target).square().mean()
                parts = torch.autograd.grad(loss, trained, allow_unused=True)  # the projector has none
                gradients[objective].append(torch.cat([part.flatten() for part in parts if part is not None]).cpu())
            progress.update(1)
        for objective, found in gradients.items():
            all_of = torch.stack(found).double()
            norm = all_of.square().sum(1)
            deviation = (all_of - all_of.mean(0)).square().sum(1) * len(found) / (len(found) - 1)
            values = zip(norm.tolist(), deviation.tolist(), strict=True)
            rows += [(info["step"], objective, number, *pair) for number, pair in enumerate(values)]
    return pd.DataFrame(rows, columns=["step", "objective", "batch", "squared_norm", "squared_deviation"])


def _makers(run: Run, settings: GradientVariance, data: Latents, device: torch.device) -> dict[str, BatchMaker]:
    plain = {"alignment": None, "class_token": False}
    cfm = run.model_copy(update=plain | {"objective": "cfm", "stablevm": None})
    stable = run.model_copy(update=plain | {"objective": "stf", "stablevm": settings.stablevm})
    found = {
        "cfm": BatchMaker(cfm, data, None, None, device, 0, 1),
        "stablevm": BatchMaker(stable, data, None, build_bank(stable, data, device), device, 0, 1),
    }
    found["stablevm"].fill_bank()
    return found
