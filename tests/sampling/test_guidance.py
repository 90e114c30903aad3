"""Classifier-free guidance: u + s (c - u) on a closed interval, the conditional half first."""

import pytest
import torch

from stablevelocity.errors import UserError
from stablevelocity.sampling import guided_velocity, heun, uniform_times

NULL = 10


class Recorder:
    """A class-conditional field with v = (y + 1) x, that remembers what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def __call__(self, x, t, y):
        self.calls.append((x, t, y))
        return (y + 1).to(x.dtype)[:, None] * x


def setup(**options):
    model = Recorder()
    labels = torch.tensor([2, 5])
    return model, guided_velocity(model, labels, null_class=NULL, **options), torch.randn(2, 3)


def test_guided_value_is_u_plus_scale_times_c_minus_u():
    _, velocity, x = setup(scale=1.8)
    c, u = torch.tensor([[3.0], [6.0]]) * x, (NULL + 1) * x
    assert torch.allclose(velocity(x, 0.3), u + 1.8 * (c - u), atol=1e-5)


def test_the_conditional_half_comes_first_in_one_call():
    model, velocity, x = setup(scale=2.0)
    velocity(x, 0.3)
    (seen_x, seen_t, seen_y) = model.calls[0]
    assert len(model.calls) == 1
    assert seen_y.tolist() == [2, 5, NULL, NULL]
    assert torch.equal(seen_x, torch.cat([x, x]))
    assert torch.equal(seen_t, torch.full((4,), 0.3))


@pytest.mark.parametrize(("t", "guided"), [(0.7, True), (0.2, True), (0.45, True), (0.70001, False), (0.19999, False)])
def test_the_interval_is_closed(t, guided):
    model, velocity, x = setup(scale=1.8, interval=(0.2, 0.7))
    velocity(x, t)
    assert len(model.calls[0][0]) == (4 if guided else 2)


def test_the_uniform_grid_meets_the_end_of_the_interval():
    model, velocity, x = setup(scale=1.8, interval=(0.0, 0.7))
    for t in uniform_times(250)[:-1].tolist():
        velocity(x, t)
    # 0.7 = 175/250 is on the grid and inside: 175 guided calls.
    assert sum(len(x) == 4 for x, _, _ in model.calls) == 175


def test_scale_one_is_the_conditional_field_at_half_the_cost():
    model, velocity, x = setup(scale=1.0)
    assert torch.equal(velocity(x, 0.3), torch.tensor([[3.0], [6.0]]) * x)
    assert len(model.calls[0][0]) == 2


def test_heun_tests_the_interval_again_at_its_second_time():
    model, velocity, x = setup(scale=1.8, interval=(0.0, 0.55))
    heun(velocity, x, uniform_times(2))  # 1.0 -> 0.5 -> 0.0: calls at 1.0, 0.5, 0.5
    assert [len(x) for x, _, _ in model.calls] == [2, 4, 4]


def test_a_reversed_interval_is_refused():
    with pytest.raises(UserError, match="interval"):
        setup(interval=(0.7, 0.0))
