"""The shift in force goes along from scheduler to scheduler, and nothing stale is saved."""

import json
import logging

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from scheduler_cases import BASES, noise

from stablevelocity.errors import UserError

EULER, DPM, UNIPC = (BASES[name].stablevs for name in ("euler", "dpm", "unipc"))
MULTISTEP = [DPM, UNIPC, BASES["dpm"].control, BASES["unipc"].control]


@pytest.mark.parametrize("multistep", MULTISTEP)
def test_a_shift_that_was_changed_on_the_way_is_the_one_that_comes_back(multistep):
    stock = FlowMatchEulerDiscreteScheduler(shift=3.0)
    there = multistep.from_config(stock.config, flow_shift=5.0)
    assert there.config.flow_shift == 5.0
    assert EULER.from_config(there.config).shift == 5.0
    assert FlowMatchEulerDiscreteScheduler.from_config(there.config).shift == 5.0
    again = multistep.from_config(EULER.from_config(there.config).config)
    assert again.config.flow_shift == 5.0


def test_a_stock_scheduler_that_keeps_an_older_shift_beside_its_own_is_read_by_its_own():
    there = UNIPC.from_config(FlowMatchEulerDiscreteScheduler(shift=3.0).config, flow_shift=5.0)
    back = FlowMatchEulerDiscreteScheduler.from_config(there.config, shift=7.0)
    assert back.config["flow_shift"] == 5.0  # what diffusers keeps
    assert DPM.from_config(back.config).config.flow_shift == 7.0
    saved = json.loads(back.to_json_string())
    assert DPM.from_config(saved).config.flow_shift == 7.0


@pytest.mark.parametrize("multistep", MULTISTEP)
def test_set_shift_goes_along(multistep):
    ours = EULER(shift=3.0)
    ours.set_shift(5.0)
    assert multistep.from_config(ours.config).config.flow_shift == 5.0
    assert FlowMatchEulerDiscreteScheduler.from_config(ours.config).shift == 5.0
    # The stock class does not write it into its config: give the scheduler itself.
    stock = FlowMatchEulerDiscreteScheduler(shift=3.0)
    stock.set_shift(5.0)
    assert EULER.from_config(stock).shift == 5.0
    assert multistep.from_config(stock).config.flow_shift == 5.0


@pytest.mark.parametrize("multistep", MULTISTEP)
def test_no_stale_key_is_saved_and_none_warned_of(multistep, tmp_path, caplog):
    there = multistep.from_config(FlowMatchEulerDiscreteScheduler(shift=3.0).config)
    back = EULER.from_config(there.config)
    logging.getLogger("diffusers").addHandler(caplog.handler)
    try:
        for scheduler in (there, back):
            scheduler.save_pretrained(tmp_path)
            loaded = type(scheduler).from_pretrained(tmp_path)
            loaded.set_timesteps(30)
            scheduler.set_timesteps(30)
            assert torch.equal(loaded.sigmas, scheduler.sigmas)
        assert not [record for record in caplog.records if "will be ignored" in record.message]
    finally:
        logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert "shift" not in json.loads(there.to_json_string())
    assert not {"flow_shift", "use_flow_sigmas", "prediction_type"} & json.loads(back.to_json_string()).keys()


def test_switched_off_a_shift_that_was_taken_over_is_not_warned_of(caplog):
    logging.getLogger("diffusers").addHandler(caplog.handler)
    try:
        config = FlowMatchEulerDiscreteScheduler(shift=3.0).config
        flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
        assert DPM.from_config(config, enabled=False, **flow).config.flow_shift == 3.0
        assert not [record for record in caplog.records if "'shift'" in record.message]
    finally:
        logging.getLogger("diffusers").removeHandler(caplog.handler)


@pytest.mark.parametrize("kind", ["stablevs", "control"])
@pytest.mark.parametrize(
    "stock",
    [
        EulerDiscreteScheduler(),
        DDIMScheduler(prediction_type="v_prediction"),
        DPMSolverMultistepScheduler(),
        UniPCMultistepScheduler(prediction_type="sample"),
        {"beta_start": 0.00085, "beta_schedule": "scaled_linear"},
    ],
    ids=["SDXL's Euler", "v", "DPM", "sample", "without a word of it"],
)
def test_the_config_of_a_model_that_predicts_noise_is_refused_by_name(base, kind, stock):
    config = stock if isinstance(stock, dict) else stock.config
    prediction = config.get("prediction_type", "epsilon")
    with pytest.raises(UserError, match=f"flow-matching models.*prediction_type '{prediction}'.*keep its scheduler"):
        getattr(base, kind).from_config(config)


@pytest.mark.parametrize("kind", ["stablevs", "control"])
@pytest.mark.parametrize("shift", [12.0, 50.0])
def test_every_sigma_is_stepped_once_where_a_steep_shift_makes_equal_timesteps(base, kind, shift):
    """Without begin index, as pipelines of one's own run it. The stock multistep classes end in an IndexError."""
    key = "shift" if "shift" in base.config else "flow_shift"
    scheduler = getattr(base, kind)(**base.config | {key: shift}, low_steps=100)
    scheduler.set_timesteps(100)
    assert (len(set(scheduler.timesteps.tolist())) < 100) == (base.stock is not FlowMatchEulerDiscreteScheduler)
    x, seen = noise(1, 4), []
    for timestep in scheduler.timesteps:
        x = scheduler.step(torch.zeros_like(x), timestep, x).prev_sample
        seen.append(scheduler.step_index)
    assert seen == list(range(1, 101))


def test_no_noise_is_drawn_for_the_last_step(base):
    scheduler = base.stablevs(**base.config, noise_factor=1.0)
    scheduler.set_timesteps(30)
    generator = torch.Generator().manual_seed(0)
    x, states = noise(1, 4), []
    for timestep in scheduler.timesteps:
        states.append(generator.get_state())
        x = scheduler.step(torch.zeros_like(x), timestep, x, generator=generator).prev_sample
    assert torch.equal(generator.get_state(), states[-1])
    assert not torch.equal(states[-1], states[-2])


#: What diffusers' own tests of its scheduler classes ask of them and these refuse, each by design: a model that does
#: not predict a flow velocity, options that would hold above xi only, and schedules that are no flow schedule.
BY_DESIGN = {
    "euler": [{"invert_sigmas": True}, {"stochastic_sampling": True}],
    "dpm": [
        *({"prediction_type": kind} for kind in ("epsilon", "sample", "v_prediction")),
        {"use_flow_sigmas": False},
        {"thresholding": True},
        {"algorithm_type": "sde-dpmsolver++"},  # the other two do not end at zero, which stock refuses itself
        {"final_sigmas_type": "sigma_min"},
        {"use_karras_sigmas": True},
        {"use_lu_lambdas": True},
        {"use_exponential_sigmas": True},
        {"use_beta_sigmas": True},
    ],
    "unipc": [
        *({"prediction_type": kind} for kind in ("epsilon", "sample", "v_prediction")),
        {"use_flow_sigmas": False},
        {"thresholding": True},
        {"final_sigmas_type": "sigma_min"},
        {"use_exponential_sigmas": True},
        {"use_beta_sigmas": True},
    ],
}


@pytest.mark.parametrize("kind", ["stablevs", "control"])
@pytest.mark.parametrize(
    "name, options", [(name, options) for name, refused in BY_DESIGN.items() for options in refused]
)
def test_what_diffusers_tests_ask_for_and_is_refused_by_design(name, options, kind):
    base = BASES[name]
    with pytest.raises(UserError) as refusal:
        getattr(base, kind)(**base.config | options)
    assert next(iter(options)) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_start_in_thinned_steps_is_refused_by_design_too(base):
    """diffusers' `full_loop` with noise starts at step 8 of 10, which is a step of the base schedule."""
    scheduler = base.stablevs(**base.config, low_steps=2)
    scheduler.set_timesteps(10)
    with pytest.raises(UserError, match="of 10"):
        scheduler.set_begin_index(8)
