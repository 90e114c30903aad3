"""The error table of docs/schedulers.md: what it says is what is measured, against a reference that has converged."""

import re
from pathlib import Path

import pytest
import torch

from stablevelocity.experiments.scheduler_accuracy import reference_solution, scheduler_errors
from stablevelocity.gmm import GaussianMixture, paper_mixture

PAGE = Path(__file__).parents[2] / "docs" / "schedulers.md"
ARMS = ("long", "short", "stablevs", "control")
SOLVERS = {"Euler": "euler", "DPM-Solver++": "dpm", "UniPC": "unipc"}


@pytest.fixture(scope="module")
def measured():
    # The page's own settings.
    table = scheduler_errors([16], 256, xi=0.85, low_steps=9)
    return table.set_index(["solver", "arm"])


def printed():
    rows = re.findall(r"^\| (Euler|DPM-Solver\+\+|UniPC) \|((?: 0\.\d+ \|){4})$", PAGE.read_text(), re.MULTILINE)
    return {
        (SOLVERS[name], arm): float(value)
        for name, values in rows
        for arm, value in zip(ARMS, values.strip(" |").split("|"), strict=True)
    }


def test_the_page_prints_what_is_measured(measured):
    assert len(printed()) == 12
    for key, value in printed().items():
        # Three decimals; sums of 256 points in float32 differ between machines by far less.
        assert measured.rms_error[key] == pytest.approx(value, abs=0.0015), key


def test_every_arm_makes_the_calls_it_is_charged_for(measured):
    assert all(measured.calls[solver, arm] == (30 if arm == "long" else 20) for solver, arm in measured.index)


def test_the_pages_findings_hold(measured):
    error = measured.rms_error
    assert error["euler", "stablevs"] == error["euler", "control"]
    for solver in SOLVERS.values():
        # Fewer steps cost accuracy, the thinned grid costs more than as many stock steps ...
        assert error[solver, "long"] < error[solver, "short"] < error[solver, "control"]
    for solver in ("dpm", "unipc"):
        # ... and the closed form more than the base solver's own step on that grid.
        assert error[solver, "stablevs"] > 1.5 * error[solver, "control"]
        assert error[solver, "long"] < 0.5 * error["euler", "long"]


def test_the_reference_has_converged(measured):
    mixture = paper_mixture(16)
    noise = torch.randn(256, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    coarse, fine = (reference_solution(mixture, noise, steps) for steps in (500, 1000))
    change = float((coarse - fine).square().mean().sqrt())
    # A hundredth of the smallest error that it is there to measure.
    assert change < 0.01 * measured.rms_error.min()


def test_the_reference_is_the_straight_line_for_one_gaussian_seen_whole():
    # One Gaussian N(m, s^2 I): the flow maps noise z at t = 1 to m + s z.
    mean, deviation = torch.tensor([[0.7, -0.4]], dtype=torch.float64), 0.3
    mixture = GaussianMixture(
        weights=torch.ones(1, dtype=torch.float64), means=mean, variances=torch.full((1, 2), deviation**2).double()
    )
    noise = torch.randn(64, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    # Heun, 1,000 steps: second order in steps of a thousandth, near t = 0 in units of the deviation.
    torch.testing.assert_close(reference_solution(mixture, noise), mean + deviation * noise, rtol=0, atol=1e-4)
