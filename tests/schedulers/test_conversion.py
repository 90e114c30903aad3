"""From the published scheduler configs to each of ours: the grid is the model's own, or one line says why not."""

import math

import numpy as np
import pytest
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from scheduler_cases import BASES

from stablevelocity.errors import UserError

#: What the scheduler_config.json of each model holds; what it leaves out is the class's default.
STOCK = {
    "sd35": FlowMatchEulerDiscreteScheduler.from_config({"num_train_timesteps": 1000, "shift": 3.0}),
    "flux": FlowMatchEulerDiscreteScheduler.from_config(
        {
            "base_image_seq_len": 256,
            "base_shift": 0.5,
            "max_image_seq_len": 4096,
            "max_shift": 1.15,
            "num_train_timesteps": 1000,
            "shift": 3.0,
            "use_dynamic_shifting": True,
        }
    ),
    "qwen-image": FlowMatchEulerDiscreteScheduler.from_config(
        {
            "base_image_seq_len": 256,
            "base_shift": 0.5,
            "invert_sigmas": False,
            "max_image_seq_len": 8192,
            "max_shift": 0.9,
            "num_train_timesteps": 1000,
            "shift": 1.0,
            "shift_terminal": 0.02,
            "stochastic_sampling": False,
            "time_shift_type": "exponential",
            "use_beta_sigmas": False,
            "use_dynamic_shifting": True,
            "use_exponential_sigmas": False,
            "use_karras_sigmas": False,
        }
    ),
    "wan22": UniPCMultistepScheduler.from_config(
        {
            "num_train_timesteps": 1000,
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "beta_schedule": "linear",
            "solver_order": 2,
            "prediction_type": "flow_prediction",
            "thresholding": False,
            "predict_x0": True,
            "solver_type": "bh2",
            "lower_order_final": True,
            "use_flow_sigmas": True,
            "flow_shift": 3.0,
            "timestep_spacing": "linspace",
            "final_sigmas_type": "zero",
        }
    ),
}


def pipelines_call(config, steps=30, tokens=4096):
    """How the model's pipeline sets the timesteps of a 1024 x 1024 picture."""
    if not config.get("use_dynamic_shifting"):
        return {"num_inference_steps": steps}
    mu = calculate_shift(
        tokens, config["base_image_seq_len"], config["max_image_seq_len"], config["base_shift"], config["max_shift"]
    )
    return {"sigmas": np.linspace(1.0, 1 / steps, steps), "mu": mu}


@pytest.mark.parametrize("kind", ["stablevs", "control"])
@pytest.mark.parametrize(
    "model, solver, high, low",
    [
        ("sd35", "euler", 11, 9),
        ("sd35", "dpm", 11, 9),
        ("flux", "euler", 11, 9),
        ("qwen-image", "euler", 8, 9),
        ("wan22", "unipc", 11, 9),
    ],
)
def test_thirty_base_steps_of_a_published_config_become_the_papers_budgets(model, solver, high, low, kind):
    # docs/paper.md#stablevs: 11 + 9, 11 + 9, 8 + 9, 11 + 9 at xi 0.85. One line: from_config, nothing else.
    config = STOCK[model].config
    scheduler = getattr(BASES[solver], kind).from_config(config)
    scheduler.set_timesteps(**pipelines_call(config))
    sigmas = scheduler.sigmas.numpy()
    assert (np.count_nonzero(sigmas >= 0.85), np.count_nonzero((sigmas < 0.85) & (sigmas > 0))) == (high, low)
    assert len(scheduler.timesteps) == scheduler.num_inference_steps == high + low
    assert sigmas[-1] == 0
    assert np.all(np.diff(sigmas) < 0)


@pytest.mark.parametrize("kind", ["stablevs", "control"])
@pytest.mark.parametrize("solver", ["dpm", "unipc"])
def test_a_multistep_scheduler_from_sd35s_euler_config_has_its_shift(solver, kind):
    made = getattr(BASES[solver], kind).from_config(STOCK["sd35"].config, low_steps=99)
    assert (made.config.flow_shift, made.config.use_flow_sigmas) == (3.0, True)
    assert made.config.prediction_type == "flow_prediction"
    made.set_timesteps(30)
    # The stock multistep classes space u = k/30 from 1 to 1/1000, then shift: sigma = 3u/(1 + 2u).
    u = 1 - (1 - 1 / 1000) * 12 / 30
    assert float(made.sigmas[12]) == pytest.approx(3 * u / (1 + 2 * u), rel=2e-3)


def test_what_is_passed_goes_before_what_the_config_says():
    made = BASES["dpm"].stablevs.from_config(STOCK["sd35"].config, flow_shift=5.0)
    assert made.config.flow_shift == 5.0
    again = BASES["dpm"].stablevs.from_config(made.config)
    assert again.config.flow_shift == 5.0


def test_the_way_back_to_the_stock_euler_keeps_its_shift():
    made = BASES["unipc"].stablevs.from_config(STOCK["sd35"].config)
    assert FlowMatchEulerDiscreteScheduler.from_config(made.config).config.shift == 3.0


@pytest.mark.parametrize("kind", ["stablevs", "control"])
def test_an_euler_scheduler_from_wans_unipc_config_has_its_shift(kind):
    made = getattr(BASES["euler"], kind).from_config(STOCK["wan22"].config)
    stock = FlowMatchEulerDiscreteScheduler(shift=3.0)
    for scheduler in (made, stock):
        scheduler.set_timesteps(30)
    assert made.config.shift == 3.0
    assert set(made.sigmas.tolist()) <= set(stock.sigmas.tolist())


def test_a_saved_euler_config_loads_as_dpm_with_its_shift(tmp_path):
    STOCK["sd35"].save_pretrained(tmp_path)
    assert BASES["dpm"].stablevs.from_pretrained(tmp_path).config.flow_shift == 3.0


def test_qwens_terminal_shift_is_refused_by_dpm_and_honoured_by_unipc():
    config = STOCK["qwen-image"].config
    with pytest.raises(UserError, match=r"shift_terminal=0\.02") as refusal:
        BASES["dpm"].stablevs.from_config(config)
    assert "\n" not in str(refusal.value)
    made = BASES["unipc"].stablevs.from_config(config)
    made.set_timesteps(**pipelines_call(config))
    euler = BASES["euler"].control.from_config(config, low_steps=99)
    euler.set_timesteps(**pipelines_call(config))
    # The terminal itself is the last base sigma; UniPC keeps it in the thinned grid.
    assert float(made.sigmas[-2]) == pytest.approx(0.02, rel=1e-5)
    assert float(euler.sigmas[-2]) == pytest.approx(0.02, rel=1e-5)
    assert len(made.timesteps) == 17


def test_fluxs_dynamic_shift_reaches_dpm():
    config = STOCK["flux"].config
    made = BASES["dpm"].stablevs.from_config(config)
    made.set_timesteps(**pipelines_call(config))
    # e^mu / (e^mu + 1/u - 1) at u = 27/30.
    assert float(made.sigmas[3]) == pytest.approx(math.exp(1.15) / (math.exp(1.15) + 30 / 27 - 1), rel=1e-5)
    assert len(made.timesteps) == 20


@pytest.mark.parametrize("option", ["invert_sigmas", "stochastic_sampling"])
@pytest.mark.parametrize("solver", ["dpm", "unipc"])
def test_euler_options_without_a_multistep_meaning_are_refused(solver, option):
    config = FlowMatchEulerDiscreteScheduler(shift=3.0, **{option: True}).config
    with pytest.raises(UserError, match=option):
        BASES[solver].stablevs.from_config(config)


@pytest.mark.parametrize("solver, stock", [("dpm", DPMSolverMultistepScheduler), ("unipc", UniPCMultistepScheduler)])
def test_switched_off_an_euler_config_becomes_what_the_stock_class_makes_of_it(solver, stock):
    config = STOCK["qwen-image" if solver == "dpm" else "sd35"].config
    made = BASES[solver].stablevs.from_config(config, enabled=False)
    plain = stock.from_config(config)
    named = [key for key in plain.config if not key.startswith("_")]
    assert [made.config[key] for key in named] == [plain.config[key] for key in named]


@pytest.mark.parametrize("name", ["dpm", "unipc"])
def test_the_way_through_any_compatible_scheduler_and_back_loses_nothing(name):
    """Pipelines swap schedulers by `from_config`; diffusers says between which classes that has to work."""
    base = BASES[name]
    scheduler = base.stablevs(**base.config, xi=0.8, low_steps=5, solver_order=3)
    for other in scheduler.compatibles:
        if "SDE" in other.__name__:  # needs torchsde
            continue
        back = base.stablevs.from_config(other.from_config(scheduler.config).config)
        assert {key: back.config[key] for key in scheduler.config} == dict(scheduler.config), other
