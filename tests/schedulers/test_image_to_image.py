"""Starts midway: right where the start can be known, one line where it cannot; on the real SD3 pipeline too."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Img2ImgPipeline
from scheduler_cases import BASES, noise, run

from stablevelocity.errors import UserError
from stablevelocity.pretrained.families import FAMILIES
from stablevelocity.pretrained.scenes import SIZE
from stablevelocity.pretrained.tiny import TINY_FAMILIES

UNIFORM = np.linspace(1.0, 1 / 30, 30)


@pytest.mark.parametrize("start", [5, 14], ids=["above xi", "below xi"])
def test_a_start_counts_thinned_steps_where_sigmas_were_given(base, start):
    ours = base.stablevs(**base.config)
    ours.set_timesteps(sigmas=UNIFORM)
    ours.set_begin_index(start)
    clean, eps = noise(2, 4, seed=3), noise(2, 4, seed=4)
    at = ours.timesteps[start : start + 1].repeat(2)
    noised = ours.scale_noise(clean, at, eps) if hasattr(ours, "scale_noise") else ours.add_noise(clean, eps, at)
    sigma = ours.sigmas[start]
    torch.testing.assert_close(noised, (1 - sigma) * clean + sigma * eps, rtol=1e-6, atol=1e-6)
    # The velocity of that very pair is eps - clean at all times: the run must return to `clean`.
    x = noised
    for timestep in ours.timesteps[start:]:
        x = ours.step(eps - clean, timestep, x).prev_sample
    # Multistep solvers work with logarithms of sigma in float32.
    torch.testing.assert_close(x, clean, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["stablevs", "control"])
def test_a_start_is_refused_in_one_line_where_only_a_number_of_steps_was_given(base, kind):
    ours = getattr(base, kind)(**base.config)
    ours.set_timesteps(30)
    ours.set_begin_index(0)
    with pytest.raises(UserError, match=r"step 12 of 30 .* 20 kept.*np\.linspace\(1, 1 / 30, 30\)\[12:\]") as refusal:
        ours.set_begin_index(12)
    assert "\n" not in str(refusal.value)


def test_so_is_a_start_at_a_sliced_timestep_without_begin_index(base):
    # As Wan's video-to-video pipeline does it.
    ours = base.stablevs(**base.config)
    ours.set_timesteps(30)
    with pytest.raises(UserError, match="12 of 30"):
        run(ours, noise(2, 4), start=12)
    # A strength of 0.3 slices 21 timesteps off the 20 that are there.
    if hasattr(ours, "add_noise"):
        with pytest.raises(UserError, match="20 of 30"):
            ours.add_noise(noise(2, 4), noise(2, 4), ours.timesteps[21:][:1].repeat(2))


def test_a_start_is_honoured_where_nothing_was_dropped(base):
    ours, stock = base.stablevs(**base.config, low_steps=30), base.stock(**base.config)
    for scheduler in (ours, stock):
        scheduler.set_timesteps(30)
        scheduler.set_begin_index(12)
    assert ours.sigmas[12] == stock.sigmas[12]
    run(ours, noise(2, 4), start=12)


def test_the_rest_of_the_base_schedule_starts_every_base_solver_there(base):
    ours, whole = base.stablevs(**base.config), base.stock(**base.config)
    ours.set_timesteps(sigmas=UNIFORM[12:])
    # Shift 3 of 18/30; a start below xi still has its nine steps.
    assert float(ours.sigmas[0]) == pytest.approx(3 * 0.6 / (1 + 2 * 0.6), rel=1e-6)
    assert len(ours.timesteps) == 9
    # The stock grids differ in their last places only: at 30 steps the twelfth sigma is the same within 1 %.
    whole.set_timesteps(30)
    assert float(ours.sigmas[0]) == pytest.approx(float(whole.sigmas[12]), rel=0.01)


def test_a_refusal_does_not_outlive_the_next_grid(base):
    ours = base.stablevs(**base.config)
    ours.set_timesteps(30)
    ours.set_timesteps(sigmas=UNIFORM)
    ours.set_begin_index(12)


@pytest.fixture(scope="module")
def components():
    torch.manual_seed(0)
    tiny = TINY_FAMILIES["sd35"]
    return tiny.pipeline(tiny.transformer(), tiny.autoencoder()).components


def edited(components, scheduler, **call):
    """Timesteps that the real pipeline ran, and its scheduler after the run."""
    pipeline = StableDiffusion3Img2ImgPipeline(**{**components, "scheduler": scheduler})
    pipeline.set_progress_bar_config(disable=True)
    steps = []

    def record(_pipeline, _index, timestep, _tensors):
        steps.append(float(timestep))
        return {}

    pipeline(
        image=torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)),
        height=SIZE,
        width=SIZE,
        generator=torch.Generator().manual_seed(0),
        callback_on_step_end=record,
        output_type="latent",
        **FAMILIES["sd35"].text_arguments(["a seven"], with_encoders=False),
        **call,
    )
    return steps, pipeline.scheduler


@pytest.mark.parametrize("strength", [0.3, 0.6])
def test_the_pipeline_with_a_number_of_steps_alone_ends_in_that_line(components, strength):
    with pytest.raises(UserError, match="pass sigmas"):
        edited(components, BASES["euler"].stablevs(shift=3.0), num_inference_steps=30, strength=strength)


def test_the_rest_of_the_base_schedule_with_strength_one_starts_where_the_stock_pipeline_starts(components):
    stock = FlowMatchEulerDiscreteScheduler(shift=3.0)
    every, _ = edited(components, stock, num_inference_steps=30, strength=0.6)
    ours = BASES["euler"].stablevs(shift=3.0)
    rest = np.linspace(ours.sigma_max, ours.sigma_min, 30)[12:]
    steps, _ = edited(components, ours, sigmas=rest, strength=1.0)
    assert len(every) == 18
    # All 18 lie below xi; nine of them remain, from the very first on.
    assert len(steps) == 9
    assert steps[0] == pytest.approx(every[0], rel=1e-6)
    assert all(min(abs(step - other) for other in every) < 1e-2 for step in steps)


def test_all_sigmas_with_a_strength_run_that_share_of_the_thinned_steps(components):
    # What docs/schedulers.md says of it: strength 0.6 then starts at sigma 0.89 instead of 0.82.
    steps, scheduler = edited(components, BASES["euler"].stablevs(shift=3.0), sigmas=UNIFORM, strength=0.6)
    assert steps == scheduler.timesteps[8:].tolist()
    assert len(scheduler.timesteps) == 20
    assert steps[0] == pytest.approx(892, abs=1)
    stock, _ = edited(components, FlowMatchEulerDiscreteScheduler(shift=3.0), sigmas=UNIFORM, strength=0.6)
    assert stock[0] == pytest.approx(818, abs=1)
