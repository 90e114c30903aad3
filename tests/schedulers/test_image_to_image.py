"""Starts midway: right where the start can be known, one line where it cannot; on the real SD3 pipeline too."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Img2ImgPipeline
from scheduler_cases import BASES, noise, run
from tqdm import tqdm

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
    with pytest.raises(UserError, match=r"step 12 of 30 .* 20 kept.*base_sigmas\(30\)\[12:\]") as refusal:
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
        with pytest.raises(UserError, match="after the 20 steps that are kept of 30"):
            ours.add_noise(noise(2, 4), noise(2, 4), ours.timesteps[21:][:1].repeat(2))


def test_a_start_is_honoured_where_nothing_was_dropped(base):
    ours, stock = base.stablevs(**base.config, low_steps=30), base.stock(**base.config)
    for scheduler in (ours, stock):
        scheduler.set_timesteps(30)
        scheduler.set_begin_index(12)
    assert ours.sigmas[12] == stock.sigmas[12]
    run(ours, noise(2, 4), start=12)


@pytest.mark.parametrize("start", range(30))
def test_the_rest_of_the_base_schedule_starts_every_base_solver_where_stock_does(base, start):
    ours, whole = base.stablevs(**base.config), base.stock(**base.config)
    ours.set_timesteps(sigmas=ours.base_sigmas(30)[start:])
    whole.set_timesteps(30)
    # The same numbers, but for the last bits of a shift that is computed in another order.
    assert float(ours.sigmas[0]) == pytest.approx(float(whole.sigmas[start]), abs=2e-7)
    assert min(30 - start, 9) <= len(ours.timesteps) <= 30 - start


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
    with pytest.raises(UserError, match="base_sigmas"):
        edited(components, BASES["euler"].stablevs(shift=3.0), num_inference_steps=30, strength=strength)


@pytest.mark.parametrize("strength", [0.05, 0.1, 0.3, 0.35, 0.5, 0.55, 0.6, 0.7, 0.9, 0.95, 1.0])
def test_the_advice_starts_where_the_stock_pipeline_starts(components, strength):
    """Whatever the rounding of 30 (1 - strength): the refusal says the step that the pipeline asked for."""
    every, _ = edited(components, FlowMatchEulerDiscreteScheduler(shift=3.0), num_inference_steps=30, strength=strength)
    ours = BASES["euler"].stablevs(shift=3.0)
    start = int(30 - min(30 * strength, 30))  # docs/schedulers.md
    if start:
        with pytest.raises(UserError, match=rf"base_sigmas\(30\)\[{start}:\] and strength=1"):
            edited(components, ours, num_inference_steps=30, strength=strength)
    steps, _ = edited(components, ours, sigmas=ours.base_sigmas(30)[start:], strength=1.0)
    assert len(every) == 30 - start
    assert steps[0] == pytest.approx(every[0], rel=1e-6)
    assert all(min(abs(step - other) for other in every) < 1e-2 for step in steps)


@pytest.mark.parametrize("given", ["steps", "sigmas"])
def test_the_bar_of_a_pipeline_is_full_where_it_is_given_the_sigmas(components, given):
    """Given a number of steps alone, pipelines count the steps that they asked for: the bar ends at 20 of 30."""
    tiny = TINY_FAMILIES["sd35"]
    pipeline = tiny.pipeline(components["transformer"], components["vae"])
    pipeline.scheduler = BASES["euler"].stablevs(shift=3.0)
    bars = []
    pipeline.progress_bar = lambda iterable=None, total=None: bars.append(tqdm(total=total, disable=False)) or bars[-1]
    asked = {"num_inference_steps": 30} if given == "steps" else {"sigmas": pipeline.scheduler.base_sigmas(30)}
    text = FAMILIES["sd35"].text_arguments(["a seven"], with_encoders=False)
    pipeline(height=SIZE, width=SIZE, output_type="latent", **text, **asked)
    assert (bars[0].n, bars[0].total) == ((20, 30) if given == "steps" else (20, 20))


@pytest.mark.parametrize("end", [0.2, 0.5, 0.8, 1.0])
def test_the_end_of_a_control_is_at_the_stock_noise_level_by_the_formula_of_the_docs(end):
    ours, stock = BASES["euler"].stablevs(shift=3.0), FlowMatchEulerDiscreteScheduler(shift=3.0)
    for scheduler in (ours, stock):
        scheduler.set_timesteps(30)
    level = stock.sigmas[int(end * 30)]
    converted = float((ours.sigmas[:-1] > level).sum()) / len(ours.timesteps)

    def controlled(scheduler, end):  # as diffusers' ControlNet pipelines have it
        count = len(scheduler.timesteps)
        return [float(scheduler.sigmas[i]) for i in range(count) if (i + 1) / count <= end]

    wanted = [sigma for sigma in ours.sigmas[:-1].tolist() if sigma > level]
    assert controlled(ours, converted) == wanted
    assert min(controlled(stock, end)) - 1e-6 <= min(wanted)


def test_all_sigmas_with_a_strength_run_that_share_of_the_thinned_steps(components):
    # What docs/schedulers.md says of it: strength 0.6 then starts at sigma 0.89 instead of 0.82.
    steps, scheduler = edited(components, BASES["euler"].stablevs(shift=3.0), sigmas=UNIFORM, strength=0.6)
    assert steps == scheduler.timesteps[8:].tolist()
    assert len(scheduler.timesteps) == 20
    assert steps[0] == pytest.approx(892, abs=1)
    stock, _ = edited(components, FlowMatchEulerDiscreteScheduler(shift=3.0), sigmas=UNIFORM, strength=0.6)
    assert stock[0] == pytest.approx(818, abs=1)
