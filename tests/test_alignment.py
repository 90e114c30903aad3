"""Alignment: the six schedules against the published table, the loss against the sum written out."""

import math

import numpy as np
import pytest
import torch

from stablevelocity.alignment import (
    SCHEDULES,
    alignment_loss,
    alignment_weight,
    negative_cosine,
    spatial_normalise,
)
from stablevelocity.errors import UserError
from stablevelocity.interpolants import CosinePath

XI = 0.7
FALLING = ["hard", "sigmoid", "cosine", "snr", "uniform"]


def weight(t: float, schedule: str, **options) -> float:
    return alignment_weight(torch.tensor([t], dtype=torch.float64), schedule, **options).item()


@pytest.mark.parametrize(
    ("schedule", "at_0", "below", "at_xi", "at_1"),
    [
        # Values at t = 0, 0.35, 0.7 = xi and 1, worked out from the table of docs/paper.md#va-repa.
        ("hard", 1, 1, 0, 0),
        ("hard_high", 0, 0, 1, 1),
        ("sigmoid", 1 / (1 + math.exp(-14)), 1 / (1 + math.exp(-7)), 0.5, 1 / (1 + math.exp(6))),
        ("cosine", 1, 0.5, 0, 0),
        ("snr", 1, (0.65 / 0.35) ** 2 / ((0.65 / 0.35) ** 2 + (0.3 / 0.7) ** 2), 0.5, 0),
        ("uniform", 1, 1, 1, 1),
    ],
)
def test_schedules_have_the_published_values(schedule, at_0, below, at_xi, at_1):
    for t, value in ((0.0, at_0), (0.35, below), (XI, at_xi), (1.0, at_1)):
        assert weight(t, schedule) == pytest.approx(value, abs=1e-12)


def test_all_six_schedules_are_there():
    assert set(SCHEDULES) == {"hard", "hard_high", "sigmoid", "cosine", "snr", "uniform"}


@pytest.mark.parametrize("schedule", FALLING)
@pytest.mark.parametrize("xi", [0.2, 0.7, 0.9])
def test_weights_fall_with_t_and_stay_in_the_unit_interval(schedule, xi):
    t = torch.linspace(0, 1, 301)
    values = alignment_weight(t, schedule, xi)
    assert (values.diff() <= 1e-7).all()
    assert values.min() >= 0
    assert values.max() <= 1
    assert values.dtype == t.dtype


def test_hard_and_hard_high_share_the_times_between_them():
    t = torch.linspace(0, 1, 101)
    assert torch.equal(alignment_weight(t, "hard") + alignment_weight(t, "hard_high"), torch.ones(101))


def test_snr_follows_the_path():
    # On the cosine path SNR = cot^2(pi t/2); at t = 0.5 it is 1.
    ratio = 1 / math.tan(math.pi * XI / 2) ** 2
    assert weight(0.5, "snr", path=CosinePath()) == pytest.approx(1 / (1 + ratio))


def test_slope_is_that_of_the_sigmoid_only():
    assert weight(0.6, "sigmoid", k=5.0) == pytest.approx(1 / (1 + math.exp(-0.5)))


def test_unknown_schedules_and_split_points_are_refused():
    with pytest.raises(UserError, match="expected one of hard, hard_high, sigmoid"):
        alignment_weight(torch.rand(3), "linear")
    for xi in (0.0, 1.0, -0.1):
        with pytest.raises(UserError, match="0 < xi < 1"):
            alignment_weight(torch.rand(3), "hard", xi)


def tokens(batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, batch, 6, 5, generator=generator)


def test_loss_is_the_weighted_mean_of_negative_cosines():
    projections, features = tokens()
    w = torch.tensor([0.0, 0.2, 1.0, 0.7])
    per_sample = []
    for z, y in zip(projections.double().numpy(), features.double().numpy(), strict=True):
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(z, y, strict=True)]
        per_sample.append(-np.mean(cosines))
    truth = (w.numpy() * per_sample).sum() / w.numpy().sum()
    assert alignment_loss(projections, features, w).item() == pytest.approx(truth, rel=1e-5)
    assert negative_cosine(projections, 3 * projections).tolist() == pytest.approx([-1] * 4)


def test_loss_does_not_change_with_the_scale_of_the_weights():
    projections, features = tokens()
    w = torch.tensor([0.1, 0.2, 0.4, 0.7])
    loss = alignment_loss(projections, features, w)
    assert alignment_loss(projections, features, 10 * w).item() == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize("schedule", ["hard", "cosine"])
def test_a_batch_wholly_above_the_split_point_gives_zero_loss_and_zero_gradient(schedule):
    projections, features = tokens()
    projections.requires_grad_()
    w = alignment_weight(torch.tensor([0.71, 0.8, 0.95, 1.0]), schedule)
    loss = alignment_loss(projections, features, w)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(projections.grad, torch.zeros_like(projections))


def test_slices_of_a_batch_add_up_to_its_loss():
    projections, features = tokens(8)
    w = alignment_weight(torch.linspace(0, 1, 8))
    whole = alignment_loss(projections, features, w)
    halves = [alignment_loss(projections[s], features[s], w[s], w.sum()) for s in (slice(0, 3), slice(3, 8))]
    assert sum(halves).item() == pytest.approx(whole.item(), rel=1e-6)


def test_loss_is_computed_in_float32_whatever_the_autocast():
    projections, features = tokens()
    w = torch.ones(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = alignment_loss(projections, features, w)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, alignment_loss(projections, features, w))
    # Half-precision features of norm 1e4: their squares overflow float16, not float32.
    large = (features * 5000).half()
    assert torch.isfinite(alignment_loss(large, large, w))


def test_spatial_normalisation_is_the_published_formula():
    features = tokens()[0] + 3
    z = features.double().numpy()
    truth = (z - 0.6 * z.mean(1, keepdims=True)) / (z.std(1, ddof=1, keepdims=True) + 1e-6)
    assert np.allclose(spatial_normalise(features).numpy(), truth, atol=1e-5)
    whole = spatial_normalise(features, gamma=1.0)
    assert torch.allclose(whole.mean(1), torch.zeros(4, 5), atol=1e-5)
