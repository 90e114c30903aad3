"""Promises that hold for all three schedulers and their control arms, with the reason of each."""

import copy
import pickle

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from scheduler_cases import FLOW, noise, run, velocity

from stablevelocity.errors import UserError
from stablevelocity.schedulers import (
    StableVSDPMSolverMultistepScheduler,
    StableVSFlowMatchEulerScheduler,
    StableVSUniPCMultistepScheduler,
)


def test_with_every_sigma_above_xi_it_is_the_stock_scheduler_bit_for_bit(base):
    ours, stock = base.stablevs(**base.config, xi=0.0), base.stock(**base.config)
    for scheduler in (ours, stock):
        scheduler.set_timesteps(12)
    assert torch.equal(run(ours, noise(2, 4))[-1], run(stock, noise(2, 4))[-1])


def test_above_xi_the_states_are_those_of_the_stock_scheduler(base):
    # The whole point of a comparison at one seed: nothing differs until the switch.
    ours, stock = base.stablevs(**base.config), base.stock(**base.config)
    for scheduler in (ours, stock):
        scheduler.set_timesteps(30)
    same = ours.first_low_step - base.hands_over_early
    for a, b in zip(run(ours, noise(2, 4))[: same + 1], run(stock, noise(2, 4))[: same + 1], strict=True):
        assert torch.equal(a, b)


def test_below_xi_each_step_is_the_straight_line_along_the_velocity(base):
    ours = base.stablevs(**base.config)
    ours.set_timesteps(30)
    states, sigmas = run(ours, noise(3, 4)), ours.sigmas
    first = ours.first_low_step - base.hands_over_early
    assert len(sigmas) - 1 - first == 9 + base.hands_over_early
    for i in range(first, len(sigmas) - 1):
        expected = states[i] + (sigmas[i + 1] - sigmas[i]) * velocity(states[i], ours.timesteps[i])
        torch.testing.assert_close(states[i + 1], expected, rtol=1e-6, atol=1e-6)


def test_the_control_arm_takes_the_stock_step_on_the_grid_of_stablevs(base):
    ours, control, stock = base.stablevs(**base.config), base.control(**base.config), base.stock(**base.config)
    ours.set_timesteps(30)
    control.set_timesteps(30)
    assert torch.equal(ours.sigmas, control.sigmas)
    assert torch.equal(ours.timesteps, control.timesteps)
    stock.set_timesteps(30)
    stock.sigmas, stock.timesteps = control.sigmas, control.timesteps
    assert torch.equal(run(control, noise(2, 4))[-1], run(stock, noise(2, 4))[-1])


def test_with_a_multistep_base_the_control_arm_differs():
    for kind in (StableVSDPMSolverMultistepScheduler, StableVSUniPCMultistepScheduler):
        ours, off = kind(**FLOW), kind(**FLOW)
        ours.set_timesteps(30)
        off.set_timesteps(30)
        off.first_low_step = None  # never in the low regime: the base step throughout
        assert not torch.allclose(run(ours, noise(2, 4))[-1], run(off, noise(2, 4))[-1], atol=1e-4)


def test_all_noise_anew_is_the_stock_stochastic_sampler_below_xi():
    # f = 1: x_tau = (1 - tau) x0 + tau eps, which diffusers calls stochastic_sampling.
    ours = StableVSFlowMatchEulerScheduler(shift=3.0, noise_factor=1.0)
    ours.set_timesteps(sigmas=np.linspace(1, 1 / 30, 30))
    stock = FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
    stock.set_timesteps(30)
    stock.sigmas, stock.timesteps = ours.sigmas, ours.timesteps
    x, start = noise(2, 4), ours.first_low_step
    results = []
    for scheduler in (ours, stock):
        scheduler.set_begin_index(start)
        torch.manual_seed(1)  # diffusers 0.37 draws from the default generator, whichever it is given
        results.append(run(scheduler, x, start=start)[-1])
    # The same formula in another order of float32 operations, nine steps.
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_nothing_of_the_stock_config_is_lost(base):
    changed = {**base.config, "num_train_timesteps": 500}
    if base.stock is FlowMatchEulerDiscreteScheduler:
        changed |= {"shift": 2.5, "base_shift": 0.4, "max_shift": 1.3, "max_image_seq_len": 8192}
    else:
        changed |= {"solver_order": 3, "lower_order_final": False, "flow_shift": 5.0}
    stock = base.stock(**changed)
    for kind in (base.stablevs, base.control):
        ours = kind.from_config(stock.config)
        assert {key: ours.config[key] for key in stock.config if not key.startswith("_")} == {
            key: value for key, value in stock.config.items() if not key.startswith("_")
        }
        assert (ours.config.xi, ours.config.low_steps, ours.config.enabled) == (0.85, 9, True)
    # And back: the stock class from our config is what it was.
    back = base.stock.from_config(base.stablevs.from_config(stock.config).config)
    assert all(back.config[key] == value for key, value in changed.items())


def test_unknown_options_are_refused_as_the_stock_class_refuses_them(base):
    with pytest.raises(TypeError, match="unexpected keyword"):
        base.stablevs(**base.config, low_step=9)


def test_it_saves_and_loads(base, tmp_path):
    ours = base.stablevs(**base.config, xi=0.7, low_steps=5, noise_factor=0.25)
    ours.save_pretrained(tmp_path)
    again = base.stablevs.from_pretrained(tmp_path)
    again.set_timesteps(30)
    ours.set_timesteps(30)
    extras = {key: again.config[key] for key in ("xi", "low_steps", "noise_factor", "enabled")}
    assert extras == {"xi": 0.7, "low_steps": 5, "noise_factor": 0.25, "enabled": True}
    assert torch.equal(again.sigmas, ours.sigmas)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("after", [3, 13], ids=["above xi", "below xi"])
def test_a_copy_made_midway_goes_on_as_the_original(base, duplicate, after):
    # accelerate moves objects between processes by pickling; pipelines deepcopy their scheduler.
    ours = base.stablevs(**base.config)
    ours.set_timesteps(30)
    x = noise(2, 4)
    for timestep in ours.timesteps[:after]:
        x = ours.step(velocity(x, timestep), timestep, x, return_dict=False)[0]
    twin = duplicate(ours)
    assert type(twin) is type(ours)
    assert twin.config == ours.config
    assert torch.equal(run(ours, x, start=after)[-1], run(twin, x, start=after)[-1])


def test_setting_timesteps_again_starts_afresh(base):
    ours = base.stablevs(**base.config)
    ours.set_timesteps(10)
    run(ours, noise(2, 4))
    ours.set_timesteps(30)
    fresh = base.stablevs(**base.config)
    fresh.set_timesteps(30)
    assert torch.equal(run(ours, noise(2, 4))[-1], run(fresh, noise(2, 4))[-1])


def test_custom_sigmas_are_taken_before_the_shift_as_the_stock_class_takes_them():
    given = [1.0, 0.8, 0.6, 0.45, 0.3, 0.15, 0.05]
    for ours, stock in (
        (StableVSFlowMatchEulerScheduler(shift=2.0, low_steps=3), FlowMatchEulerDiscreteScheduler(shift=2.0)),
        (StableVSUniPCMultistepScheduler(**FLOW, low_steps=3), UniPCMultistepScheduler(**FLOW)),
        # DPM-Solver++ has no sigmas of its own; it takes them as UniPC does.
        (StableVSDPMSolverMultistepScheduler(**FLOW, low_steps=3), UniPCMultistepScheduler(**FLOW)),
    ):
        ours.set_timesteps(sigmas=list(given))
        stock.set_timesteps(sigmas=np.array(given))
        assert set(ours.sigmas.tolist()) < set(stock.sigmas.tolist())
        assert ours.timesteps.dtype == stock.timesteps.dtype


def test_dpm_with_the_sigmas_of_its_own_schedule_is_the_stock_run():
    own = 1 - np.linspace(1, 1 / 1000, 31)[:0:-1]
    ours = StableVSDPMSolverMultistepScheduler(**FLOW, xi=0.0)
    ours.set_timesteps(sigmas=own)
    stock = DPMSolverMultistepScheduler(**FLOW)
    stock.set_timesteps(30)
    assert torch.equal(ours.timesteps, stock.timesteps)
    torch.testing.assert_close(ours.sigmas, stock.sigmas, rtol=1e-6, atol=0)
    torch.testing.assert_close(run(ours, noise(2, 4))[-1], run(stock, noise(2, 4))[-1], rtol=1e-5, atol=1e-5)


def test_dpm_with_sigmas_from_one_and_mu_is_shifted_as_the_other_bases_are():
    # As FluxPipeline calls its scheduler.
    sigmas = np.linspace(1, 1 / 30, 30)
    ours = StableVSDPMSolverMultistepScheduler(**FLOW, use_dynamic_shifting=True)
    ours.set_timesteps(sigmas=sigmas, mu=1.15)
    unipc = StableVSUniPCMultistepScheduler(**FLOW, use_dynamic_shifting=True)
    unipc.set_timesteps(sigmas=sigmas, mu=1.15)
    torch.testing.assert_close(ours.sigmas, unipc.sigmas, rtol=1e-6, atol=0)
    assert torch.isfinite(run(ours, noise(2, 4))[-1]).all()


def test_custom_timesteps_stay_beside_their_sigmas():
    timesteps = [1000.0, 900.0, 700.0, 500.0, 300.0, 100.0]
    sigmas = [t / 1000 for t in timesteps]
    ours = StableVSFlowMatchEulerScheduler(low_steps=2)
    ours.set_timesteps(sigmas=sigmas, timesteps=timesteps)
    np.testing.assert_allclose(ours.timesteps.numpy(), 1000 * ours.sigmas[:-1].numpy(), rtol=1e-6)
    assert len(ours.timesteps) == 4


@pytest.mark.parametrize("option", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
def test_euler_honours_the_sigma_options_of_its_base(option):
    ours = StableVSFlowMatchEulerScheduler(shift=3.0, **{option: True})
    stock = FlowMatchEulerDiscreteScheduler(shift=3.0, **{option: True})
    ours.set_timesteps(30)
    stock.set_timesteps(30)
    kept = set(ours.sigmas.tolist())
    assert kept <= set(stock.sigmas.tolist())
    assert {s for s in stock.sigmas.tolist() if s >= float(np.float32(0.85))} <= kept


def test_unipc_honours_karras_sigmas():
    ours = StableVSUniPCMultistepScheduler(**FLOW, use_karras_sigmas=True)
    stock = UniPCMultistepScheduler(**FLOW, use_karras_sigmas=True)
    ours.set_timesteps(30)
    stock.set_timesteps(30)
    assert set(ours.sigmas.tolist()) < set(stock.sigmas.tolist())
    assert torch.isfinite(run(ours, noise(1, 4))[-1]).all()


REFUSED = [
    (StableVSFlowMatchEulerScheduler, {"invert_sigmas": True}),
    (StableVSFlowMatchEulerScheduler, {"stochastic_sampling": True}),
    (StableVSFlowMatchEulerScheduler, {"xi": 1.5}),
    (StableVSFlowMatchEulerScheduler, {"low_steps": 0}),
    (StableVSFlowMatchEulerScheduler, {"noise_factor": -0.1}),
    (StableVSDPMSolverMultistepScheduler, {}),
    (StableVSDPMSolverMultistepScheduler, {**FLOW, "prediction_type": "epsilon"}),
    (StableVSDPMSolverMultistepScheduler, {**FLOW, "use_karras_sigmas": True}),
    (StableVSDPMSolverMultistepScheduler, {**FLOW, "use_exponential_sigmas": True}),
    (StableVSDPMSolverMultistepScheduler, {**FLOW, "use_beta_sigmas": True}),
    (StableVSDPMSolverMultistepScheduler, {**FLOW, "use_lu_lambdas": True}),
    (StableVSDPMSolverMultistepScheduler, {**FLOW, "final_sigmas_type": "sigma_min"}),
    (StableVSDPMSolverMultistepScheduler, {**FLOW, "thresholding": True}),
    (StableVSDPMSolverMultistepScheduler, {**FLOW, "algorithm_type": "sde-dpmsolver++"}),
    (StableVSUniPCMultistepScheduler, {**FLOW, "thresholding": True}),
    (StableVSUniPCMultistepScheduler, {**FLOW, "use_exponential_sigmas": True}),
    (StableVSUniPCMultistepScheduler, {**FLOW, "use_beta_sigmas": True}),
    (StableVSUniPCMultistepScheduler, {**FLOW, "final_sigmas_type": "sigma_min"}),
]


@pytest.mark.parametrize("kind, options", REFUSED)
def test_what_has_no_meaning_here_is_refused_in_one_line_and_only_while_enabled(kind, options):
    with pytest.raises(UserError) as refusal:
        kind(**options)
    assert kind.__name__ in str(refusal.value)
    assert "\n" not in str(refusal.value)
    if not {"xi", "low_steps", "noise_factor"} & set(options):
        kind(**options, enabled=False)


@pytest.mark.parametrize("sigmas", [[1.0, 1.0, 0.5], [0.2, 0.5, 1.0], [1.0, 0.5, 0.0], [14.6, 3.0, 0.1]])
def test_sigmas_that_are_no_flow_sigmas_are_refused_in_one_line(sigmas):
    with pytest.raises(UserError, match="decrease strictly") as refusal:
        StableVSFlowMatchEulerScheduler().set_timesteps(sigmas=sigmas)
    assert "\n" not in str(refusal.value)


def test_noise_comes_from_the_generator_and_each_sample_may_have_its_own(base):
    def final(rows, seeds):
        ours = base.stablevs(**base.config, noise_factor=0.5)
        ours.set_timesteps(30)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return run(ours, noise(3, 4, 2, 2)[rows], generator=generators)[-1]

    assert torch.equal(final([0, 1, 2], [5, 6, 7]), final([0, 1, 2], [5, 6, 7]))
    assert not torch.equal(final([0, 1, 2], [5, 6, 7]), final([0, 1, 2], [5, 6, 8]))
    # A sample does not depend on its companions in the batch (rounding of batched kernels aside).
    torch.testing.assert_close(final([0, 1, 2], [5, 6, 7])[1:2], final([1], [6]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["stablevs", "control"])
def test_dynamic_shift_without_mu_is_refused(base, kind):
    # The stock DPM-Solver++ would take flow_shift instead, in silence.
    with pytest.raises((ValueError, UserError), match="mu"):
        getattr(base, kind)(**base.config, use_dynamic_shifting=True).set_timesteps(30)


@pytest.mark.parametrize(
    "options, call, named",
    [
        ({}, {"timesteps": [999, 500, 100]}, "timesteps"),
        ({}, {"num_inference_steps": 30, "mu": 1.15}, "mu"),
        (
            {"use_dynamic_shifting": True, "time_shift_type": "linear"},
            {"num_inference_steps": 30, "mu": 1.15},
            "time_shift_type",
        ),
    ],
    ids=["timesteps", "mu without dynamic shifting", "linear shift"],
)
def test_calls_at_which_the_stock_dpm_fails_end_in_one_line(options, call, named):
    with pytest.raises(UserError, match=named) as refusal:
        StableVSDPMSolverMultistepScheduler(**FLOW, **options).set_timesteps(**call)
    assert "\n" not in str(refusal.value)


def test_the_generator_attribute_stands_in_where_step_is_given_none(base):
    # Pipelines hand theirs to the first noise only.
    def final(attribute, **step_options):
        ours = base.stablevs(**base.config, noise_factor=0.5)
        ours.generator = attribute
        ours.set_timesteps(30)
        return run(ours, noise(2, 4), **step_options)[-1]

    def seeded(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    state = torch.get_rng_state()
    by_attribute = final(seeded(5, 6))
    assert torch.equal(by_attribute, final(None, generator=seeded(5, 6)))
    assert torch.equal(by_attribute, final(seeded(7, 8), generator=seeded(5, 6)))
    assert not torch.equal(by_attribute, final(seeded(7, 8)))
    # One generator for the batch is as good, and nothing came from the global one.
    assert torch.equal(final(seeded(5)[0]), final(None, generator=seeded(5)[0]))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_scheduler_with_a_generator_is_copied_with_its_state(base):
    ours = base.stablevs(**base.config, noise_factor=0.5)
    ours.generator = torch.Generator().manual_seed(3)
    ours.set_timesteps(30)
    for duplicate in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        original = copy.deepcopy(ours)
        assert torch.equal(run(duplicate, noise(2, 4))[-1], run(original, noise(2, 4))[-1])


@pytest.mark.parametrize("kind", ["stablevs", "control"])
def test_a_video_is_stepped_as_its_frames_are(base, kind):
    # All arithmetic is by element: five dimensions must give what four give, enabled, through both regimes.
    def final(x):
        ours = getattr(base, kind)(**base.config)
        ours.set_timesteps(30)
        return run(ours, x)[-1]

    video = noise(2, 16, 3, 4, 4)
    frames = torch.stack([final(video[:, :, i]) for i in range(3)], dim=2)
    # Vectorised cosines round otherwise at the ends of a row; twenty steps.
    torch.testing.assert_close(final(video), frames, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("terminal", [None, 0.02])
def test_shift_terminal_ends_the_base_grid_where_it_says(terminal):
    for kind in (StableVSFlowMatchEulerScheduler, StableVSUniPCMultistepScheduler):
        flow = {} if kind is StableVSFlowMatchEulerScheduler else FLOW
        ours = kind(**flow, use_dynamic_shifting=True, shift_terminal=terminal, low_steps=50)
        ours.set_timesteps(sigmas=np.linspace(1, 1 / 30, 30), mu=0.7)
        if terminal:
            assert float(ours.sigmas[-2]) == pytest.approx(terminal, abs=1e-6)
        assert len(ours.timesteps) == 30


def test_dpm_takes_mu_as_the_stock_class_does():
    options = {**FLOW, "use_dynamic_shifting": True}
    ours = StableVSDPMSolverMultistepScheduler(**options, low_steps=50)
    ours.set_timesteps(30, mu=1.15)
    sigma = float(ours.sigmas[10])
    u = 0.999 * 20 / 30  # alpha runs from 1 to 1/1000 in 31 points; the eleventh from the noisy end
    shift = np.exp(1.15)
    assert sigma == pytest.approx(shift * u / (1 + (shift - 1) * u), rel=1e-5)


def test_per_token_timesteps_are_refused_in_one_line():
    ours = StableVSFlowMatchEulerScheduler()
    ours.set_timesteps(10)
    with pytest.raises(UserError, match="per_token_timesteps"):
        ours.step(noise(1, 4), ours.timesteps[0], noise(1, 4), per_token_timesteps=torch.ones(1, 4))


def test_the_grid_rule_is_replaceable_in_one_place(base):
    class EverySecond(base.stablevs):
        @staticmethod
        def grid_rule(sigmas, xi, low_steps, *, skip_smallest):
            return list(range(0, len(sigmas), 2))

    ours = EverySecond(**base.config)
    ours.set_timesteps(30)
    assert len(ours.timesteps) == 15
    assert ours.first_low_step == int((ours.sigmas[:-1] >= 0.85).sum())
