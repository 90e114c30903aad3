"""With `enabled=False` each scheduler is its stock class, bit for bit, whatever the stock class is asked to do."""

import numpy as np
import pytest
import torch
from scheduler_cases import BASES, noise, run

from stablevelocity.errors import UserError

UNIFORM = np.linspace(1.0, 1 / 30, 30)
#: name: (extra config, call). A float32 array: the stock UniPC shifts it in float32, not in float64.
CALLS = {
    "plain": ({}, {"num_inference_steps": 30}),
    "list of sigmas": ({}, {"sigmas": list(UNIFORM)}),
    "float32 sigmas": ({}, {"sigmas": UNIFORM.astype(np.float32)}),
    "float64 sigmas": ({}, {"sigmas": UNIFORM}),
    "mu": ({"use_dynamic_shifting": True}, {"num_inference_steps": 30, "mu": 1.15}),
    "mu and sigmas": ({"use_dynamic_shifting": True}, {"sigmas": UNIFORM.astype(np.float32), "mu": 0.7}),
    "terminal": ({"shift_terminal": 0.02}, {"num_inference_steps": 30}),
    "karras": ({"use_karras_sigmas": True}, {"num_inference_steps": 30}),
    "exponential": ({"use_exponential_sigmas": True}, {"num_inference_steps": 30}),
    "beta": ({"use_beta_sigmas": True}, {"num_inference_steps": 30}),
}


def taken_by(name, call, extra):
    """DPM-Solver++ has neither sigmas nor a terminal shift."""
    return name != "dpm" or not ("sigmas" in call or "shift_terminal" in extra)


CASES = [
    pytest.param(base, extra, call, id=f"{name}-{what}")
    for name, base in BASES.items()
    for what, (extra, call) in CALLS.items()
    if taken_by(name, call, extra)
]


def equal(a, b):
    # Beta and exponential sigmas of the multistep classes are no flow sigmas: their states are NaN, in both.
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["stablevs", "control"])
@pytest.mark.parametrize("base, extra, call", CASES)
def test_grid_and_states_are_the_stock_ones(base, extra, call, kind, dtype):
    ours = getattr(base, kind)(**base.config, **extra, enabled=False)
    stock = base.stock(**base.config, **extra)
    ours.set_timesteps(**call)
    # The stock UniPC multiplies its sigmas by the shift, which a list cannot do; ours makes an array of it.
    stock.set_timesteps(**{key: np.asarray(value) if key == "sigmas" else value for key, value in call.items()})
    equal(ours.sigmas, stock.sigmas)
    equal(ours.timesteps, stock.timesteps)
    x = noise(2, 4, 3, 3, dtype=dtype)
    for a, b in zip(run(ours, x), run(stock, x), strict=True):
        equal(a, b)


@pytest.mark.parametrize("kind", ["stablevs", "control"])
def test_a_start_midway_counts_the_stock_steps(base, kind):
    ours, stock = getattr(base, kind)(**base.config, enabled=False), base.stock(**base.config)
    results = []
    for scheduler in (ours, stock):
        scheduler.set_timesteps(30)
        scheduler.set_begin_index(12)
        results.append(run(scheduler, noise(2, 4), start=12)[-1])
    equal(*results)


@pytest.mark.parametrize("kind", ["stablevs", "control"])
def test_a_start_at_a_timestep_without_begin_index_too(base, kind):
    ours, stock = getattr(base, kind)(**base.config, enabled=False), base.stock(**base.config)
    results = []
    for scheduler in (ours, stock):
        scheduler.set_timesteps(30)
        results.append(run(scheduler, noise(2, 4), start=12)[-1])
    equal(*results)


def test_dpm_solver_then_has_no_sigmas_as_its_stock_class():
    base = BASES["dpm"]
    with pytest.raises(UserError, match="only while enabled"):
        base.stablevs(**base.config, enabled=False).set_timesteps(sigmas=UNIFORM)
