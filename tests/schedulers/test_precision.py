"""bf16 samples: all arithmetic in float32, in both regimes, with one rounding per step."""

import pytest
import torch
from scheduler_cases import BASES, noise, run, velocity

BF16 = torch.bfloat16


def on_thinned_grid(base, kind, steps=30):
    """A StableVS or control scheduler, and the stock class on its grid."""
    ours, stock = getattr(base, kind)(**base.config), base.stock(**base.config)
    for scheduler in (ours, stock):
        scheduler.set_timesteps(steps)
    stock.sigmas, stock.timesteps = ours.sigmas, ours.timesteps
    return ours, stock


def steps_in_float32(stock, states, first_closed):
    """Each next state computed in float32 from the given bf16 states, rounded once."""
    for i, timestep in enumerate(stock.timesteps):
        x, v = states[i].float(), velocity(states[i], timestep).float()
        if i < first_closed:
            yield stock.step(v, timestep, x).prev_sample.to(BF16)
        else:
            yield (x + (stock.sigmas[i + 1] - stock.sigmas[i]) * v).to(BF16)


@pytest.mark.parametrize("kind", ["stablevs", "control"])
def test_every_bf16_step_is_the_float32_step_rounded_once(base, kind):
    ours, stock = on_thinned_grid(base, kind)
    states = run(ours, noise(4, 4, 8, 8, dtype=BF16))
    assert all(state.dtype == BF16 for state in states)
    closed = ours.first_low_step - base.hands_over_early if kind == "stablevs" else len(ours.timesteps)
    for state, wanted in zip(states[1:], steps_in_float32(stock, states, closed), strict=True):
        assert torch.equal(state, wanted)


@pytest.mark.parametrize("name", ["euler", "unipc"])
def test_the_stock_classes_round_within_a_step(name):
    # What the upcast is for; the day diffusers upcasts by itself, this says so.
    ours, stock = on_thinned_grid(BASES[name], "control")
    x = noise(4, 4, 8, 8, dtype=BF16)
    assert not torch.equal(run(ours, x)[-1], run(stock, x)[-1])


@pytest.mark.parametrize("dtype", [torch.float32, BF16, torch.float16])
def test_with_euler_the_control_arm_and_stablevs_are_one_and_the_same_in_every_dtype(dtype):
    # docs/paper.md#stablevs: on the linear path with f = 0 the closed form is the Euler step.
    base = BASES["euler"]
    results = []
    for kind in ("stablevs", "control"):
        ours, _ = on_thinned_grid(base, kind)
        results.append(run(ours, noise(4, 4, 8, 8, dtype=dtype))[-1])
    assert torch.equal(*results)


@pytest.mark.parametrize("kind", ["stablevs", "control"])
@pytest.mark.parametrize("x_dtype, v_dtype", [(torch.float32, BF16), (BF16, torch.float32), (BF16, BF16)])
def test_the_dtype_of_the_result_is_the_stock_one(base, kind, x_dtype, v_dtype):
    # Wan keeps float32 latents beside a bf16 network, SD3 has bf16 for both.
    ours, stock = on_thinned_grid(base, kind)
    dtypes = []
    for scheduler in (ours, stock):
        x = noise(2, 4, dtype=x_dtype)
        dtypes.append([])
        for timestep in scheduler.timesteps:
            x = scheduler.step(velocity(x, timestep).to(v_dtype), timestep, x, return_dict=False)[0]
            dtypes[-1].append(x.dtype)
            x = x.to(x_dtype)
    assert dtypes[0] == dtypes[1]
