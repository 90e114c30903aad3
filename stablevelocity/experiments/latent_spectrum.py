"""The spectrum of latents: where a data set lies among the exact flows."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from stablevelocity.data.latents import Latents
from stablevelocity.data.shards import random_rows


def latent_spectrum(latents: Path, samples: int = 20_000) -> pd.DataFrame:
    """Standard deviation of scaled posterior means along each principal axis, the largest first.

    Columns: axis (from 1), deviation, samples and exponent, minus the slope of log deviation over log axis on the first
    half of the axes that the samples span: what `ExactFlow.exponents` is to be compared with.
    """
    dataset = Latents(latents)
    rows = random_rows(len(dataset), samples, 0)
    means = dataset.means(rows).flatten(1).double()
    deviation = torch.linalg.svdvals(means - means.mean(0)).numpy() / math.sqrt(len(rows) - 1)
    half = np.arange(1, max(2, min(deviation.size, len(rows) - 1) // 2) + 1)
    slope = np.polyfit(np.log(half), np.log(deviation[: half.size]), 1)[0]
    axes = np.arange(1, deviation.size + 1)
    return pd.DataFrame({"axis": axes, "deviation": deviation, "samples": len(rows), "exponent": -slope})
