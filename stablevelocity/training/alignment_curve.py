"""The alignment loss against time of a trained run (the paper's figure 3)."""

from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from stablevelocity.alignment import negative_cosine, spatial_normalise
from stablevelocity.data.latents import Latents
from stablevelocity.errors import UserError
from stablevelocity.interpolants import LinearPath
from stablevelocity.models.networks import load_network
from stablevelocity.randomness import generator
from stablevelocity.training.features import open_features

TIMES = torch.arange(0.025, 1.0, 0.05)


@torch.no_grad()
def alignment_curve(weights: Path, latents: Path, features: Path, images: int = 512) -> pd.DataFrame:
    """l_RA of `images` training images at 20 times with EMA weights.

    Columns step, t, mean, q15, q85, and the same at every time: label_only and noise_only, the loss of the best
    prediction that knows the label alone, or (as from pure noise) nothing of the image. The same images and noise at
    every time. l_RA is minus the mean cosine, in [-1, 1]; lower is better aligned.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, info = load_network(weights)
    network.to(device)
    if info["run"]["alignment"] is None:
        raise UserError(f"{weights}: run {info['run']['name']} has no alignment, so there is no curve to draw")
    dataset = Latents(latents)
    encoder = open_features(features, len(dataset), network.grid, device)
    images = min(images, len(dataset))
    rows = torch.randperm(len(dataset), generator=generator(0, 0, "alignment images"))[:images]
    noise = torch.randn(images, *dataset.shape, generator=generator(0, 0, "alignment noise"))
    x0 = dataset.sample(rows, torch.zeros_like(noise))
    tokens, class_token = encoder.tokens(encoder.read(rows, class_token=info["run"]["class_token"]))
    gamma = info["run"]["alignment"]["spatial_norm"]
    if gamma is not None:
        tokens = spatial_normalise(tokens.float(), gamma)
    labels = dataset.labels[rows]
    token, token_noise = None, None
    if class_token is not None and info["run"]["class_token"]:
        token = class_token.float()
        token_noise = torch.randn(token.shape, generator=generator(0, 0, "alignment class token"))
    baselines = {
        "label_only": constant_prediction_loss(tokens, labels),
        "noise_only": constant_prediction_loss(tokens, torch.zeros_like(labels)),
    }
    path, table = LinearPath(), []
    for t in TIMES.tolist():
        loss = []
        for part in torch.arange(images).split(128):
            times = torch.full((len(part),), t, device=device)
            class_t = None
            if token is not None and token_noise is not None:
                class_t = path.interpolate(token[part].to(device), token_noise[part].to(device), times)
            x_t = path.interpolate(x0[part].to(device), noise[part].to(device), times)
            output = network(x_t, times, labels[part].to(device), class_t)
            loss.append(negative_cosine(output.projections[0], tokens[part].to(device)).cpu())
        values = torch.cat(loss).double()
        q15, q85 = values.quantile(torch.tensor([0.15, 0.85], dtype=torch.float64)).tolist()
        row = {"step": info["step"], "t": round(t, 6), "mean": values.mean().item(), "q15": q15, "q85": q85}
        table.append(row | baselines)
    return pd.DataFrame(table)


def constant_prediction_loss(tokens: Float[Tensor, "n tokens width"], groups: Int[Tensor, " n"]) -> float:
    """Mean l_RA of the best prediction that is one per group and place.

    Under the cosine that is the direction of the mean of normalised tokens. Each image is predicted from the others of
    its group, so that no image predicts itself; those alone in their group are left out (NaN when all are). From a few
    others a prediction is poor: with thousands of classes this needs many images.
    """
    unit = F.normalize(tokens.double(), dim=-1)
    groups = groups.to(unit.device)
    losses = []
    for group in groups.unique():
        own = unit[groups == group]
        if len(own) > 1:
            losses.append(negative_cosine(own.sum(0) - own, own))
    return torch.cat(losses).mean().item() if losses else float("nan")
