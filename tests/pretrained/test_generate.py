"""The same code path as for the originals, on untrained tiny pipelines of the same classes."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from stablevelocity.errors import UserError
from stablevelocity.pretrained import generate as library
from stablevelocity.pretrained.families import FAMILIES
from stablevelocity.pretrained.generate import generate, prepare, sample, seed_of, total
from stablevelocity.pretrained.picture_files import picture_paths, read_pictures
from stablevelocity.pretrained.prompts import digit_prompts, digit_video_prompts
from stablevelocity.pretrained.scenes import FRAMES, SIZE
from stablevelocity.study.pretrained_settings import SOLVERS

STEPS = {"sd35": (20, 9), "flux": (20, 9), "qwen-image": (17, 9), "wan22": (20, 9)}


def some_prompts(family, count=2):
    return digit_video_prompts(count, 0) if family.is_video else digit_prompts(1, 0)[:count]


def small_arm(family, kind="stablevs"):
    """Few steps, for tests that are about files and seeds."""
    return family.arm(f"{SOLVERS[family.name][0]}-{kind}")


def test_every_family_runs_its_papers_step_counts(family, load, tmp_path):
    pipeline, prompts = load(family), some_prompts(family, 1)
    took = total(generate(family, pipeline, small_arm(family), prompts, tmp_path, images=1, seed=0, batch=1))
    assert (took.steps, took.low_steps) == STEPS[family.name]
    assert 0 < took.low_regime < took.denoising < took.end_to_end
    picture = read_pictures(family, tmp_path, prompts, 1)
    assert picture.shape == (1, *((FRAMES,) if family.is_video else ()), SIZE, SIZE, 3)
    assert picture.std() > 0


def test_the_long_run_counts_its_own_steps_below_xi(load, tmp_path):
    family = FAMILIES["sd35"]
    took = total(
        generate(
            family, load(family), family.arm("euler-long"), some_prompts(family, 1), tmp_path, images=1, seed=0, batch=1
        )
    )
    # 30 steps at shift 3: 11 at or above 0.85.
    assert (took.steps, took.low_steps) == (30, 19)


def test_pictures_do_not_depend_on_batch_or_shard(family, load, tmp_path):
    pipeline, prompts, arm = load(family), some_prompts(family), small_arm(family)
    for where, batch, shards in (("whole", 4, 1), ("single", 1, 2)):
        for shard in range(shards):
            generate(
                family,
                pipeline,
                arm,
                prompts,
                tmp_path / where,
                images=2,
                seed=0,
                batch=batch,
                shard=shard,
                shards=shards,
            )
    whole, single = (read_pictures(family, tmp_path / where, prompts, 2).astype(int) for where in ("whole", "single"))
    # Batched matrix products round differently; one grey level of 255.
    assert np.abs(whole - single).max() <= 1
    assert len({picture.tobytes() for picture in whole}) == len(whole)


def test_with_euler_stablevs_and_control_make_the_same_pictures(load, tmp_path):
    family = FAMILIES["sd35"]
    pipeline, prompts = load(family), some_prompts(family, 1)
    for kind in ("stablevs", "control"):
        generate(family, pipeline, family.arm(f"euler-{kind}"), prompts, tmp_path / kind, images=1, seed=0, batch=1)
    a, b = (read_pictures(family, tmp_path / kind, prompts, 1) for kind in ("stablevs", "control"))
    assert np.array_equal(a, b)


def test_the_pipeline_keeps_its_own_scheduler(load, tmp_path):
    family = FAMILIES["flux"]
    pipeline = load(family)
    stock = pipeline.scheduler
    generate(family, pipeline, small_arm(family), some_prompts(family, 1), tmp_path, images=1, seed=0, batch=1)
    assert pipeline.scheduler is stock


def test_a_stopped_run_goes_on_and_makes_only_what_is_missing(load, tmp_path):
    family = FAMILIES["flux"]
    pipeline, prompts, arm = load(family), some_prompts(family), small_arm(family)

    def run(seed=0):
        generate(family, pipeline, arm, prompts, tmp_path, images=1, seed=seed, batch=1)
        return {path.name: path.stat().st_mtime_ns for path in sorted((tmp_path / "records").glob("*.json"))}

    first, pictures = run(), read_pictures(family, tmp_path, prompts, 1)
    (tmp_path / "records" / "000-00001.json").unlink()
    shutil.rmtree(tmp_path / "00001")
    second = run()
    assert second["000-00000.json"] == first["000-00000.json"]
    assert second["000-00001.json"] != first["000-00001.json"]
    assert np.array_equal(read_pictures(family, tmp_path, prompts, 1), pictures)
    # Another seed is another set of pictures, and none of the old ones may pass for it.
    run(seed=1)
    assert not np.array_equal(read_pictures(family, tmp_path, prompts, 1), pictures)


@pytest.mark.parametrize("name", ["flux", "wan22"])
def test_a_deleted_picture_is_made_again_though_its_record_is_there(name, load, tmp_path):
    family = FAMILIES[name]
    pipeline, prompts, arm = load(family), some_prompts(family), small_arm(family)

    def run():
        generate(family, pipeline, arm, prompts, tmp_path, images=1, seed=0, batch=1)

    run()
    for path in picture_paths(family, tmp_path, 1, 0, prompts[1]):
        before, kept = path.read_bytes(), (tmp_path / "records" / "000-00000.json").stat().st_mtime_ns
        path.unlink()
        run()
        assert path.read_bytes() == before
        assert (tmp_path / "records" / "000-00000.json").stat().st_mtime_ns == kept


def test_the_first_call_of_a_process_is_not_timed(load, tmp_path, monkeypatch):
    family, calls = FAMILIES["sd35"], []

    def slow_at_first(*arguments):
        calls.append(arguments[4])
        return sample(*arguments)

    monkeypatch.setattr(library, "sample", slow_at_first)
    pipeline, prompts = load(family), some_prompts(family)
    made = generate(family, pipeline, small_arm(family), prompts, tmp_path, images=1, seed=0, batch=1)
    # A short one, then one for each of the two batches, and two timings.
    assert calls == [2, 30, 30]
    assert [timing.steps for timing in made] == [20, 20]
    generate(family, pipeline, small_arm(family), prompts, tmp_path, images=1, seed=0, batch=1)
    assert calls == [2, 30, 30]


@pytest.mark.parametrize("name", ["sd35", "wan22"])
def test_fresh_noise_belongs_to_the_picture_not_to_its_batch(name, load, tmp_path):
    family = FAMILIES[name]
    pipeline, prompts = load(family), some_prompts(family)
    arm = family.arm(f"{SOLVERS[name][0]}-stablevs", noise_factor=0.5)
    pictures = []
    for batch in (4, 1):
        where = tmp_path / str(batch)
        generate(family, pipeline, arm, prompts, where, images=2, seed=0, batch=batch)
        pictures.append(read_pictures(family, where, prompts, 2).astype(int))
    # Batched matrix products round differently; one grey level of 255. Other noise would differ by many.
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    calm = tmp_path / "calm"
    generate(family, pipeline, small_arm(family), prompts, calm, images=2, seed=0, batch=4)
    assert np.abs(read_pictures(family, calm, prompts, 2).astype(int) - pictures[0]).max() > 1


def test_pictures_of_other_weights_are_made_again(load, tmp_path):
    family = FAMILIES["flux"]
    pipeline, prompts, arm = load(family), some_prompts(family, 1), small_arm(family)

    def run(source):
        generate(family, pipeline, arm, prompts, tmp_path, images=1, seed=0, batch=1, source=source)
        return (tmp_path / "records" / "000-00000.json").stat().st_mtime_ns

    first = run("first weights")
    assert run("first weights") == first
    assert run("other weights") != first


def test_images_lie_as_genevals_scorer_wants_them(load, tmp_path):
    family = FAMILIES["sd35"]
    prompts = some_prompts(family)
    generate(family, load(family), small_arm(family), prompts, tmp_path, images=2, seed=0, batch=4)
    for p, entry in enumerate(prompts):
        assert json.loads((tmp_path / f"{p:05d}" / "metadata.jsonl").read_text()) == entry
        assert sorted(path.name for path in (tmp_path / f"{p:05d}" / "samples").iterdir()) == ["0000.png", "0001.png"]
        assert Image.open(tmp_path / f"{p:05d}" / "samples" / "0000.png").size == (SIZE, SIZE)


def test_videos_lie_as_t2v_compbenchs_scorer_wants_them(load, tmp_path):
    import imageio.v3 as iio

    family = FAMILIES["wan22"]
    prompts = some_prompts(family)
    generate(family, load(family), small_arm(family), prompts, tmp_path, images=1, seed=0, batch=2)
    # The scorer pairs all files of the folder with the prompts by their order, so a second set lies elsewhere.
    generate(family, load(family), small_arm(family), prompts, tmp_path, images=2, seed=0, batch=4)
    for folder in ("consistent_attr", "consistent_attr-1"):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["0001.mp4", "0002.mp4"]
    assert len(iio.imread(tmp_path / "consistent_attr" / "0001.mp4")) == FRAMES


def test_seeds_differ_in_every_number():
    seeds = {seed_of(s, p, i) for s in range(3) for p in range(30) for i in range(30)}
    assert len(seeds) == 3 * 30 * 30
    assert max(seeds) < 2**63


@pytest.mark.parametrize("shard, shards, prompts", [(2, 2, 2), (4, 5, 1), (0, 5, 1), (0, 1, 0)])
def test_a_shard_that_is_not_there_or_holds_no_prompt_is_refused(shard, shards, prompts, load, tmp_path):
    family = FAMILIES["sd35"]
    given = some_prompts(family, prompts)
    with pytest.raises(UserError, match=rf"shard {shard} of {shards}: expected one of at most {prompts}, the number"):
        generate(
            family,
            load(family),
            small_arm(family),
            given,
            tmp_path,
            images=1,
            seed=0,
            batch=1,
            shard=shard,
            shards=shards,
        )


def test_offloading_without_an_accelerator_is_refused(load):
    with pytest.raises(UserError, match="needs an accelerator"):
        prepare(load(FAMILIES["sd35"]), "cpu", "model")


def test_a_pipeline_saved_with_stablevs_loads_with_it(load, tmp_path):
    family = FAMILIES["sd35"]
    pipeline = load(family)
    pipeline.scheduler = family.arm("euler-stablevs", xi=0.8).scheduler(pipeline.scheduler.config)
    pipeline.save_pretrained(tmp_path)
    again = family.load(tmp_path, torch.float32)
    assert type(again.scheduler) is type(pipeline.scheduler)
    assert again.scheduler.config.xi == 0.8


def test_image_to_image_runs_the_thinned_steps_when_sigmas_are_passed(load):
    from diffusers import StableDiffusion3Img2ImgPipeline

    family = FAMILIES["sd35"]
    pipeline = load(family)
    edit = StableDiffusion3Img2ImgPipeline(**pipeline.components)
    edit.set_progress_bar_config(disable=True)
    edit.scheduler = family.arm("euler-stablevs").scheduler(pipeline.scheduler.config)
    steps = []
    edit(
        image=torch.rand(1, 3, SIZE, SIZE),
        strength=0.5,
        sigmas=np.linspace(1, 1 / 30, 30),
        height=SIZE,
        width=SIZE,
        generator=torch.Generator().manual_seed(0),
        callback_on_step_end=lambda pipe, i, t, tensors: steps.append(float(t)) or {},
        **family.text_arguments(["a seven"], with_encoders=False),
        **family.tiny_guidance,
    )
    # The last half of the thinned steps; from num_inference_steps=30 alone the pipeline would count 15 of 30 off.
    thinned = edit.scheduler.timesteps.tolist()
    assert len(thinned) == 20
    assert steps == thinned[10:]
