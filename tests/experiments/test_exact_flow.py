"""The exact flows: their velocity is the mixture's, their arms are what they are called, their spectrum is known."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from stablevelocity.data.shards import write_manifest, write_shard
from stablevelocity.experiments.exact_flow import ClassMixture, exact_flow_table, integrate
from stablevelocity.experiments.latent_spectrum import latent_spectrum
from stablevelocity.gmm import GaussianMixture
from stablevelocity.sampling import euler, uniform_times
from stablevelocity.schedulers import StableVSFlowMatchEulerScheduler
from stablevelocity.study.experiment_settings import ExactFlow

D, MODES, CLASSES = 6, 12, 3
TIMES = [0.0, 0.2, 0.6, 0.9, 1.0]


def mixture() -> ClassMixture:
    return ClassMixture.draw(D, 0.5, 0.3, MODES, CLASSES, seed=1)


def states() -> tuple[Tensor, Tensor]:
    x = 1.5 * torch.randn(9, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, torch.arange(9) % CLASSES


def general(flow: ClassMixture, chosen: Tensor) -> GaussianMixture:
    """Some modes as a mixture of gmm.py, whose own velocity is tested against the definition."""
    means = flow.means[chosen]
    return GaussianMixture(torch.ones(len(means)), means, flow.variance.expand_as(means).clone())


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("guidance", [1.0, 4.5])
def test_the_velocity_is_that_of_the_general_mixture_in_each_class(t: float, guidance: float) -> None:
    flow, (x, labels) = mixture(), states()
    unconditional = general(flow, torch.arange(MODES)).velocity(x, t)
    conditional = torch.empty_like(x)
    for label in range(CLASSES):
        own = labels == label
        conditional[own] = general(flow, flow.classes == label).velocity(x[own], t)
    # float64 throughout: rounding only.
    torch.testing.assert_close(flow.velocity(x, t), unconditional, rtol=1e-9, atol=1e-9)
    expected = unconditional + guidance * (conditional - unconditional)
    torch.testing.assert_close(flow.velocity(x, t, labels, guidance), expected, rtol=1e-9, atol=1e-9)


def test_the_velocity_is_the_mean_of_its_definition_mode_by_mode() -> None:
    """v = E[eps - x_0 | x_t], each mode's conditional mean written out number by number."""
    flow, (x, _), t = mixture(), states(), 0.4
    expected = torch.zeros_like(x)
    for row in range(len(x)):
        log_p, velocity = [], []
        for mean in flow.means:
            total, own = 0.0, []
            for coordinate in range(D):
                s, mu, value = float(flow.variance[coordinate]), float(mean[coordinate]), float(x[row, coordinate])
                spread, off = (1 - t) ** 2 * s + t**2, value - (1 - t) * mu
                total -= 0.5 * (off**2 / spread + math.log(spread))
                own.append(t * off / spread - (mu + (1 - t) * s * off / spread))
            log_p.append(total)
            velocity.append(own)
        weights = torch.tensor(log_p, dtype=torch.float64).softmax(0)
        expected[row] = weights @ torch.tensor(velocity, dtype=torch.float64)
    torch.testing.assert_close(flow.velocity(x, t), expected, rtol=1e-9, atol=1e-9)


def test_the_data_have_the_spectrum_and_the_spread_that_were_asked_for() -> None:
    flow = ClassMixture.draw(8, 1.0, 0.6, 40_000, 4, seed=0)
    deviation = (flow.means.var(0) + flow.variance).sqrt()
    power = 1 / torch.arange(1, 9, dtype=torch.float64)
    # 40,000 modes: the standard error of a deviation is 0.35 %.
    torch.testing.assert_close(deviation / deviation[0], power, rtol=0.02, atol=0)
    assert float(deviation.square().mean()) == pytest.approx(1, rel=0.02)
    torch.testing.assert_close(flow.variance.sqrt() / deviation, torch.full((8,), 0.6).double(), rtol=0.02, atol=0)


def test_a_scheduler_is_integrated_on_its_own_sigmas() -> None:
    """Euler with shift 3 is the solver of sampling/ on the shifted grid, but for float32."""
    flow, (noise, labels) = mixture(), states()

    def velocity(x: Tensor, t: float) -> Tensor:
        return flow.velocity(x, t, labels)

    scheduler = StableVSFlowMatchEulerScheduler(shift=3.0, enabled=False)
    end, calls = integrate(scheduler, 30, velocity, noise.float())
    # diffusers spaces sigmas from 1 to 0.001 before the shift: not the grid of uniform_times, but near to it.
    sigmas = scheduler.sigmas.double()
    torch.testing.assert_close(end, euler(velocity, noise.float().double(), sigmas), rtol=0, atol=1e-4)
    assert calls == 30
    assert uniform_times(30, 3.0)[1] == pytest.approx(float(sigmas[1]), abs=0.002)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return exact_flow_table(
        ExactFlow(
            dimensions=[4],
            exponents=[1.0],
            spreads=[0.1, 0.5],
            guidance=[1.0, 3.0],
            modes=20,
            classes=4,
            samples=8,
            seeds=[0, 1],
            truth_steps=50,
        )
    )


def test_every_arm_is_compared_at_equal_calls_and_euler_with_its_control_is_stablevs(table: pd.DataFrame) -> None:
    arms = table.pivot_table(
        index=["spread", "guidance", "seed", "solver", "xi", "low_steps"], columns="arm", values=["calls", "psnr_truth"]
    )
    calls = arms["calls"]
    assert (calls["base"] == calls["stablevs"]).all()
    assert (calls["control"] == calls["stablevs"]).all()
    assert (calls["long"] == 30).all()
    assert (calls["stablevs"] < 30).all()
    euler_rows = arms["psnr_truth"].xs("euler", level="solver")
    np.testing.assert_allclose(euler_rows["control"], euler_rows["stablevs"], atol=1e-3)
    others = arms["psnr_truth"].xs("unipc", level="solver")
    assert (abs(others["control"] - others["stablevs"]) > 0.1).all()
    assert table.loc[table["arm"] == "long", "psnr_long"].isna().all()
    assert (table.loc[table["arm"] == "long", "flips_long"] == 0).all()


def test_settings_vary_one_at_a_time_in_the_first_mixture_only(table: pd.DataFrame) -> None:
    first = (table["spread"] == 0.1) & (table["guidance"] == 1)
    settings = ["solver", "xi", "low_steps"]
    assert len(table[first][settings].drop_duplicates()) == 1 + 2 + 2 + 2
    assert table[~first][settings].drop_duplicates().values.tolist() == [["euler", 0.85, 9]]


def test_longer_runs_come_closer_to_the_true_flow(table: pd.DataFrame) -> None:
    """Order of accuracy: 30 Euler steps against 16 to 20 of the same kind of grid."""
    euler_rows = table[(table["solver"] == "euler") & (table["xi"] == 0.85)]
    mean = euler_rows.groupby("arm")["psnr_truth"].mean()
    assert mean["long"] > mean["base"] + 1


def test_the_spectrum_of_latents_is_that_of_their_covariance(tmp_path: Path) -> None:
    """A turned power law: 4,000 latents, deviation of principal axis k is scale k^-1.5."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    power = np.arange(1, 17) ** -1.5
    mean = ((rng.standard_normal((4000, 16)) * power) @ turn + 3).reshape(-1, 1, 4, 4).astype(np.float32)
    labels = np.zeros(4000, np.int64)
    write_shard(tmp_path / "s.safetensors", {"mean": mean, "std": np.ones_like(mean), "labels": labels})
    facts = {"scale": 2.0, "num_classes": 1, "autoencoder": "none", "revision": "", "identity": "none"}
    write_manifest(tmp_path / "train.json", [tmp_path / "s.safetensors"], **facts)
    found = latent_spectrum(tmp_path / "train.json")
    # Standard error of a deviation from 4,000 samples: 1.1 %.
    np.testing.assert_allclose(found["deviation"], 2 * power, rtol=0.05)
    assert found["exponent"].iloc[0] == pytest.approx(1.5, abs=0.03)
    assert found["samples"].iloc[0] == 4000
