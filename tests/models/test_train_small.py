"""The small training loop against the same steps written out."""

import pytest
import torch
from torch import nn

from stablevelocity.errors import UserError
from stablevelocity.models.train_small import train_small, update_average, warmed_decay

X = torch.linspace(-1, 1, 8)[:, None]


def parts(rate=0.5):
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    return model, optimizer, schedule


def test_two_steps_are_gradient_steps_of_clipped_norm_at_the_scheduled_rates():
    model, optimizer, schedule = parts()
    weights = [p.detach().clone().requires_grad_() for p in model.parameters()]
    _, losses = train_small("test", model, lambda: (model(X) - 3 * X - 2).square().mean(), optimizer, schedule, steps=2)
    for rate, loss in zip((0.5, 0.25), losses, strict=True):
        expected = (X @ weights[0].T + weights[1] - 3 * X - 2).square().mean()
        assert loss == pytest.approx(expected.item(), rel=1e-6)
        gradients = torch.autograd.grad(expected, weights)
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        assert norm > 1  # the clip acts
        weights = [(w - rate * g / norm).detach().requires_grad_() for w, g in zip(weights, gradients, strict=True)]
    for got, expected in zip(model.parameters(), weights, strict=True):
        # The clip divides by norm + 1e-6.
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert not model.training


def test_without_clip_the_whole_gradient_is_taken():
    model, optimizer, schedule = parts()
    before = float(model.bias.detach())
    train_small("test", model, lambda: 10 * model(X * 0).mean(), optimizer, schedule, steps=1, clip=None)
    assert float(model.bias.detach()) == pytest.approx(before - 0.5 * 10)


def test_the_average_is_the_recursion_from_the_initial_weights_with_its_warm_up():
    model, optimizer, schedule = parts()
    expected, seen = [p.detach().clone() for p in model.parameters()], []

    def loss():
        seen.append([p.detach().clone() for p in model.parameters()])
        return (model(X) - 3 * X).square().mean()

    average, _ = train_small("test", model, loss, optimizer, schedule, steps=3, ema=0.15)
    seen.append([p.detach().clone() for p in model.parameters()])
    for decay, weights in zip((1 / 10, 0.15, 0.15), seen[1:], strict=True):
        expected = [decay * e + (1 - decay) * w for e, w in zip(expected, weights, strict=True)]
    assert average is not None
    for got, want in zip(average.parameters(), expected, strict=True):
        torch.testing.assert_close(got, want)


def test_a_loss_that_is_not_finite_stops_in_one_line_with_the_weights_of_the_step_before():
    model, optimizer, schedule = parts()
    losses = iter([model(X).mean(), model(X).mean() * torch.inf])
    states = []

    def loss():
        states.append(model.weight.detach().clone())
        return next(losses)

    with pytest.raises(UserError, match=r"^judge: the loss is -?(inf|nan) at step 1; use fewer steps$"):
        train_small("judge", model, loss, optimizer, schedule, steps=5, advice="use fewer steps")
    assert torch.equal(model.weight, states[1])


def test_update_average_of_half_is_the_mean():
    average = [torch.zeros(2), torch.ones(1)]
    update_average(average, [torch.ones(2), torch.ones(1)], 0.5)
    assert torch.equal(average[0], torch.full((2,), 0.5))
    assert torch.equal(average[1], torch.ones(1))


def test_the_decay_grows_to_its_value():
    assert [warmed_decay(0.5, step) for step in (0, 8, 100)] == [0.1, 0.5, 0.5]
