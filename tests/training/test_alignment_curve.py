"""What an alignment loss is compared with: the best that the label, or nothing, says about the tokens."""

import math

import pytest
import torch

from stablevelocity.training.alignment_curve import constant_prediction_loss


def test_the_best_constant_is_found_and_no_image_predicts_itself():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 3
    directions = torch.nn.functional.normalize(torch.randn(3, 2, 16, generator=generator), dim=-1)
    lengths = 1 + 5 * torch.rand(600, 2, 1, generator=generator)  # the cosine does not see them
    tokens = directions[labels] * lengths
    assert constant_prediction_loss(tokens, labels) == pytest.approx(-1, abs=1e-6)
    # Over all labels: the mean direction at each place, at -|mean| of the three.
    expected = -float(directions.mean(0).norm(dim=-1).mean())
    assert constant_prediction_loss(tokens, torch.zeros(600, dtype=torch.long)) == pytest.approx(expected, abs=0.01)


def test_pure_noise_is_not_predicted_however_few_images_a_label_has():
    """With themselves among their group, pairs of random tokens would seem predicted at -0.7."""
    tokens = torch.randn(2000, 4, 64, generator=torch.Generator().manual_seed(1))
    loss = constant_prediction_loss(tokens, torch.arange(2000) // 2)
    # 8,000 cosines of standard deviation 1/8, in pairs of equal ones.
    assert loss == pytest.approx(0, abs=4 / 8 / math.sqrt(4000))


def test_a_label_of_one_image_says_nothing():
    tokens = torch.randn(3, 2, 4)
    assert math.isnan(constant_prediction_loss(tokens, torch.arange(3)))
    assert constant_prediction_loss(tokens, torch.tensor([0, 0, 1])) == constant_prediction_loss(
        tokens[:2], torch.tensor([0, 0])
    )
