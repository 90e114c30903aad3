"""The variance of a gradient, against one that is computed batch by batch with the trainer itself."""

from pathlib import Path

import numpy as np
import torch
from tiny_run import tiny_run
from tiny_training import trainer, write_data

from stablevelocity.study.experiment_settings import GradientVariance, StableVM
from stablevelocity.training.gradient_variance import gradient_variance


def test_the_variance_is_that_of_gradients_of_the_trainer(tmp_path: Path) -> None:
    """CFM's: of the trainer's own loss on the steps after its last; StableVM's are smaller and no longer in mean."""
    write_data(tmp_path)
    job = trainer(tiny_run("plain"), tmp_path, tmp_path / "run")
    assert job.train()
    settings = GradientVariance(arms=["plain"], batches=12)
    files = sorted((tmp_path / "run" / "weights").glob("*.safetensors"))
    table = gradient_variance(settings, files, tmp_path / "latents" / "train.json")
    job.model.load_state_dict(job.ema)
    found = []
    for step in range(24, 36):
        read = job.batches.read(step)
        job.model.zero_grad()
        job.losses(job.batches.make(read), read.weight_sum)["loss"].backward()
        found.append(torch.cat([p.grad.flatten() for p in job.trained.values() if p.grad is not None]).double())
    vectors = torch.stack(found)
    cfm = table[table["objective"] == "cfm"]
    np.testing.assert_allclose(cfm["squared_norm"], vectors.square().sum(1), rtol=1e-4)  # float32 gradients
    # With CFM's target wherever a sample lies, the two agree to rounding: x_t, labels and batches are the same.
    late = settings.model_copy(update={"stablevm": StableVM(t_min=1 - 2**-30, bank=settings.stablevm.bank)})
    same = gradient_variance(late, files, tmp_path / "latents" / "train.json")
    same = same.groupby("objective")["squared_deviation"].sum()
    np.testing.assert_allclose(same, cfm["squared_deviation"].sum(), rtol=1e-9)
    np.testing.assert_allclose(cfm["squared_deviation"].mean(), vectors.var(0).sum().item(), rtol=1e-4)
    assert table.groupby("objective")["squared_deviation"].mean().is_monotonic_decreasing
