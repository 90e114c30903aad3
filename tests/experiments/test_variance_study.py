"""The study's curves of data: its points, noise of the same covariance, and latents as training draws them."""

import numpy as np
import pytest
import torch

from stablevelocity.data.shards import write_manifest, write_shard
from stablevelocity.experiments.variance_study import data_tables, gaussian_like
from stablevelocity.study.experiment_settings import Variance


def test_noise_of_the_same_covariance_has_it_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    # Two far points in the plane: a Gaussian of their covariance has mass between them.
    samples = torch.cat([torch.full((20_000, 1), -3.0), torch.full((20_000, 1), 3.0)])
    samples = torch.cat([samples, 0.5 * torch.randn(40_000, 1, generator=generator) + 7], 1)
    noise = gaussian_like(samples, generator)
    # Standard errors of 40,000 draws: a hundredth of the variance, 0.015 of the mean.
    assert noise.mean(0).tolist() == pytest.approx(samples.mean(0).tolist(), abs=0.06)
    assert noise.T.cov().flatten().tolist() == pytest.approx(samples.T.cov().flatten().tolist(), abs=0.25)
    assert float((noise[:, 0].abs() < 1).double().mean()) == pytest.approx(0.261, abs=0.01)  # of N(0, 9)


def test_latents_have_three_curves_and_the_exact_one_knows_the_posteriors(tmp_path):
    """One image: points have no variance, the posterior N(mean, std^2) that training samples has V in closed form."""
    mean = np.tile(np.random.default_rng(0).normal(size=(1, 2, 2, 2)), (64, 1, 1, 1)).astype(np.float16)
    std = np.full((64, 2, 2, 2), 0.5, np.float16)
    write_shard(tmp_path / "l.safetensors", {"mean": mean, "std": std, "labels": np.zeros(64, np.int64)})
    facts = {"scale": 2.0, "num_classes": 1, "class_names": ["a"], "autoencoder": "a", "identity": "a"}
    write_manifest(tmp_path / "train.json", [tmp_path / "l.safetensors"], **facts)
    settings = Variance(data_times=9, exact_samples=4000)
    curves, splits = data_tables(settings, "latents", tmp_path / "train.json")
    assert sorted(splits["law"]) == ["empirical", "exact", "noise"]
    by_law = {law: part.set_index("t")["mean"] for law, part in curves.groupby("law")}
    # Equal points: float32 leaves 1e-11 of the squared scale.
    assert (by_law["empirical"] < 1e-6).all()
    # x_0 has variance s^2 = 1 in each of 8 coordinates: Var[x_0 | x_t]/sigma^2 = s^2/(alpha^2 s^2 + sigma^2).
    for t, value in by_law["exact"].items():
        assert value == pytest.approx(8 / ((1 - t) ** 2 + t**2), rel=0.04)
