"""The whole tool on an untrained tiny pipeline: what it spends, what it writes, what it refuses."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from typer.testing import CliRunner

from stablevelocity.cli.main import app
from stablevelocity.errors import UserError
from stablevelocity.pretrained.tiny import TINY_FAMILIES
from stablevelocity.schedulers import StableVSFlowMatchEulerScheduler, ThinnedUniPCMultistepScheduler
from stablevelocity.tuning import compare, recommend, record
from stablevelocity.tuning.page import write_page
from stablevelocity.tuning.pipelines import open_model
from stablevelocity.tuning.trajectory import trajectory

PROMPTS = ["a red two", "a five", "three nines", "a one and a six"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tiny pipelines of untrained networks, by family."""

    def made(name):
        torch.manual_seed(0)
        family = TINY_FAMILIES[name]
        # A fresh network's output layer is zero in some classes: a velocity that never turns.
        transformer = family.transformer()
        for parameter in transformer.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
        path = tmp_path_factory.mktemp(name)
        family.save(transformer, family.autoencoder(), path)
        return path

    return {name: made(name) for name in ("sd35", "wan22")}


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def opened(path):
    model = open_model(str(path))
    model.pipeline.set_progress_bar_config(disable=True)
    return model


def command(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_recording_changes_nothing_and_sees_the_guided_velocity(folder):
    model = opened(folder["sd35"])
    sample = model.sample(PROMPTS[0], 3, 6, enabled=False)
    model.pipeline.scheduler = model.scheduler(enabled=False)
    text = model.family.text_arguments([PROMPTS[0]], False)
    plain = model.pipeline(
        **text,
        **model.arguments,
        num_inference_steps=6,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).images[0]
    np.testing.assert_array_equal(sample.picture, (plain * 255).round().clip(0, 255).astype(np.uint8))
    # Euler over what was recorded leads through the recorded states.
    long, velocities = sample.trajectory, iter(sample.trajectory.velocities)
    again = trajectory(lambda x, sigma: next(velocities), long.states[0], long.sigmas)
    torch.testing.assert_close(again.states, long.states, rtol=0, atol=1e-5)
    assert sample.calls == 6


def test_half_a_run_is_no_trajectory():
    scheduler = StableVSFlowMatchEulerScheduler(shift=3.0)
    scheduler.set_timesteps(30)
    with record(scheduler) as recording:
        scheduler.step(torch.ones(1, 4), scheduler.timesteps[0], torch.ones(1, 4))
    assert "step" not in vars(scheduler)
    with pytest.raises(UserError, match="1 steps seen; expected the 20"):
        recording.trajectory()


def test_a_recording_keeps_the_levels_of_its_own_run():
    scheduler = StableVSFlowMatchEulerScheduler(shift=3.0, enabled=False)
    scheduler.set_timesteps(4)
    levels = scheduler.sigmas.tolist()
    with record(scheduler) as recording:
        for timestep in scheduler.timesteps:
            scheduler.step(torch.ones(1, 4), timestep, torch.ones(1, 4))
    scheduler.set_timesteps(sigmas=[0.9, 0.7, 0.5, 0.2])
    assert recording.trajectory().sigmas == tuple(levels)


def test_only_a_scheduler_is_recorded_and_once():
    scheduler = StableVSFlowMatchEulerScheduler(shift=3.0)
    with record(scheduler), pytest.raises(UserError, match="is recorded already"), record(scheduler):
        pass
    with pytest.raises(UserError, match=r"pass pipe\.scheduler"), record(torch.nn.Linear(1, 1)):
        pass


@pytest.mark.parametrize("family", ["sd35", "wan22"])
def test_the_budget_holds_and_held_out_pictures_are_new(folder, family):
    model, counted = opened(folder[family]), []
    model.pipeline.transformer.register_forward_hook(lambda module, arguments, output: counted.append(1))
    tuning, comparison = compare.tune(model, PROMPTS, steps=10, calls=6, say=lambda line: None)
    # Guidance doubles the batch in SD3, and the calls in Wan.
    passes = 2 if family == "wan22" else 1
    assert len(counted) == passes * tuning["network_calls"] <= passes * 16 * 10
    requests = [tuple(request) for request in tuning["tuning_requests"]], tuning["held_out_requests"]
    assert len(requests[1]) >= 2
    for column in (0, 1):
        assert not {request[column] for request in requests[0]} & {request[column] for request in requests[1]}
    arms = {row["arm"]: row for row in comparison.rows}
    assert list(arms) == ["long", "base", "stablevs", "tuned", *(["control"] if passes == 2 else []), "grid"]
    assert {row["calls"] for name, row in arms.items() if name != "long"} == {6}
    # The long run's grid is the tuned arms' source: no level of theirs is another.
    assert set(arms["grid"]["sigmas"]) <= set(arms["long"]["sigmas"])


def test_the_verdict_is_the_nearest_arm_and_says_where_it_may_be_chance():
    def verdict(*gains):
        rows = [{"arm": "long", "calls": 30}, {"arm": "base", "calls": 20, "psnr": 40.0}]
        mean, low, high = compare.interval(np.array(gains))
        rows.append({"arm": "grid", "calls": 20, "psnr": 40 + mean, "gain": mean, "gain_low": low, "gain_high": high})
        return compare.verdict(compare.Comparison(rows, {}, 0))

    assert verdict(3.0, 3.2, 2.9)[0] == "grid"
    assert "chance" not in verdict(3.0, 3.2, 2.9)[1]
    assert verdict(9.0, 0.1, 0.2)[0] == "grid"
    assert "chance" in verdict(9.0, 0.1, 0.2)[1]
    assert "43.0 dB, +3.0 dB over" in verdict(3.0, 3.2, 2.9)[1]  # 40 + 3.03
    assert verdict(-1.0, -1.1, -0.9)[0] == "base"
    assert "than its 40.0 dB" in verdict(-1.0, -1.1, -0.9)[1]
    # Student's t with two degrees of freedom, by hand: 4.303 standard errors.
    np.testing.assert_allclose(
        compare.interval(np.array([1.0, 2.0, 3.0])), (2, 2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), 1e-3
    )


def test_two_sets_of_prompts_are_compared_by_what_the_chosen_arm_is_worth():
    """A velocity that turns at a level of each picture's own: what one half saves steps on, the other needs."""
    levels = np.linspace(1, 0, 11).tolist()

    def long(turn, seed=0):
        noise = torch.randn(1, 6, generator=torch.Generator().manual_seed(seed))
        return trajectory(lambda x, sigma: noise.roll(int(sigma > turn), 1), noise, levels)

    early, late = long(0.85), long(0.25, 1)
    placed = recommend([early], calls=3)
    same = compare.two_sets("grid", placed, [early], [early])
    assert same == [compare.MOST_PSNR] * 2
    assert compare._agreement("grid", same).startswith("two disjoint sets of runs agree (tolerance 2 dB)")
    # Each half's steps are exact on its own pictures and not on the other's; two of three pictures are late ones.
    for arm in ("grid", "tuned"):
        halves = compare.two_sets(arm, placed, [early], [late, late])
        assert halves[1] - halves[0] > compare.AGREEMENT
        assert compare._agreement(arm, halves).endswith("raise --budget")
    # The base scheduler's steps come of no prompt.
    assert compare.two_sets("base", placed, [early], [late]) is None
    assert "\n" not in compare._agreement("base", None)


def test_tune_writes_what_a_pipeline_loads(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(compare, "verdict", lambda comparison: ("grid", "use grid"))
    done = command(
        "tune",
        folder["sd35"],
        *(f"--prompt={prompt}" for prompt in PROMPTS),
        "--steps=10",
        "--calls=6",
        "--output",
        out,
    )
    assert done.exit_code == 0, done.output
    tuning = json.loads((out / "tuning.json").read_text())
    saved = StableVSFlowMatchEulerScheduler.from_pretrained(out)
    model = opened(folder["sd35"])
    for scheduler in (
        saved,
        StableVSFlowMatchEulerScheduler.from_config(model.stock.config, xi="auto", tuning=out / "tuning.json"),
        StableVSFlowMatchEulerScheduler.from_config(model.stock.config, xi="auto"),  # cached
    ):
        scheduler.set_timesteps(10)
        np.testing.assert_allclose(scheduler.sigmas[:-1], tuning["recommendation"]["grid"], atol=1e-6)
        assert len(scheduler.timesteps) == 6
    page = (out / "page.html").read_text()
    assert page.count("<img") == 5 * len(tuning["held_out_requests"])
    assert "http" not in page.replace("http-equiv", "")


def test_the_page_shows_lpips_or_says_in_one_line_why_not(tmp_path):
    rows = [{"arm": "long", "calls": 30, "seconds": 1.0, "sigmas": [1.0, 0.5]}]
    rows.append(
        {"arm": "base", "calls": 20, "seconds": 1.0, "sigmas": [1.0], "psnr": 40.0, "ssim": 0.9, "lpips": 0.123}
    )
    pictures = {"long": [np.zeros((8, 8, 3), np.uint8)], "base": [np.zeros((8, 8, 3), np.uint8)]}
    shown = []
    for note in ("", compare._why_no_lpips(pictures["long"][0])):
        write_page(tmp_path / "page.html", "t", "s", compare.Comparison(rows, pictures, 0, note), ["a five"], {})
        shown.append((tmp_path / "page.html").read_text())
    assert "0.123" in shown[0]
    assert "left out" not in shown[0]
    assert "0.123" not in shown[1]
    assert "LPIPS is left out: it needs pictures of 64 pixels or more, these have 8." in shown[1]
    assert "not in torch" in compare._why_no_lpips(np.zeros((64, 80, 3), np.uint8))


def test_the_curve_stands_where_the_levels_are_that_are_left_out(tmp_path):
    """And a single picture has no interval."""
    rows = [{"arm": "long", "calls": 3, "seconds": 1.0, "sigmas": [1.0, 0.6, 0.2]}]
    rows.append({"arm": "base", "calls": 2, "seconds": 1.0, "sigmas": [1.0, 0.5], "psnr": 40.0, "ssim": 0.9})
    rows.append({**rows[1], "arm": "grid", "gain": 1.0})
    pictures = {row["arm"]: [np.zeros((8, 8, 3), np.uint8)] for row in rows}
    comparison = compare.Comparison(rows, pictures, 0, "no LPIPS")
    # Of three steps the second and third level can be left out, at 1190 - 940 sigma; the last value is always 0.
    write_page(tmp_path / "page.html", "Tuned", "use grid", comparison, ["a five"], {}, (0.5, 1.0, 0.0))
    page = (tmp_path / "page.html").read_text()
    points = re.search(r'points="(.*?)"', page).group(1).split()
    assert [float(point.split(",")[0]) for point in points] == [1190 - 940 * 0.6, 1190 - 940 * 0.2]
    assert "1 held-out picture;" in page
    assert "nan" not in page
    assert "interval" not in page


def test_the_arms_alone_can_be_compared(folder, tmp_path):
    done = command("compare-pipeline", folder["wan22"], "--prompt=a red two moving left", "--output", tmp_path)
    assert done.exit_code == 0, done.output
    arms = json.loads((tmp_path / "comparison.json").read_text(), parse_constant=pytest.fail)["arms"]  # no NaN
    assert [(row["arm"], row["calls"]) for row in arms] == [
        ("long", 30),
        ("base", 20),
        ("stablevs", 20),
        ("control", 20),
    ]
    model = opened(folder["wan22"])
    control = ThinnedUniPCMultistepScheduler.from_config(model.stock.config)
    control.set_timesteps(30)
    np.testing.assert_allclose(arms[3]["sigmas"], control.sigmas[:-1], atol=1e-6)


@pytest.mark.parametrize(
    "pipeline, options, expected",
    [
        ("nobody/nothing", [], "stablevelocity download"),
        ("sd35", [], "not on this machine"),
        ("folder", ["--calls=30"], "2 to 29"),
        ("folder", ["--calls=20", "--loss-db=30"], "one of the two"),
        ("folder", ["--dtype=int8"], "float32, bfloat16 or float16"),
        ("folder", ["--budget=3"], "at least 16"),
        ("folder", ["--height=33"], "divisible by 8"),
        ("folder", ["--device=nonsense"], "device 'nonsense' cannot be used"),
    ],
)
def test_mistakes_end_in_one_line(folder, tmp_path, pipeline, options, expected):
    name = folder["sd35"] if pipeline == "folder" else pipeline
    done = command("tune", name, "--prompt=a five", *options, "--output", tmp_path)
    assert isinstance(done.exception, UserError)
    assert expected in str(done.exception)
    assert "\n" not in str(done.exception)


@pytest.mark.parametrize("options", [["--calls=30"], ["--calls=1"], ["--steps=10"]])
def test_a_comparison_of_as_many_calls_as_the_long_runs_is_refused(folder, tmp_path, options):
    done = command("compare-pipeline", folder["sd35"], "--prompt=a five", *options, "--output", tmp_path)
    assert isinstance(done.exception, UserError)
    assert "fewer than the long run's" in str(done.exception)


def test_embeddings_have_the_dtype_that_was_asked_for(folder):
    model = open_model(str(folder["sd35"]), dtype="bfloat16")
    assert {value.dtype for value in model._text("a five").values()} == {torch.bfloat16}


def test_prompts_are_asked_for_once(folder, tmp_path):
    done = command("tune", folder["sd35"], "--output", tmp_path)
    assert "--prompts FILE" in str(done.exception)


def test_an_unknown_scheduler_is_refused_by_name(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder["sd35"], copy)
    DDIMScheduler().save_pretrained(copy / "scheduler")
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", "DDIMScheduler"]}))
    with pytest.raises(UserError, match="DDIMScheduler is none"):
        opened(copy)


def test_a_home_that_cannot_be_written_costs_the_cache_alone(folder, tmp_path, monkeypatch):
    """The tuning file is there, the line says how to use it, and the verb ends well."""
    occupied = tmp_path / "occupied"
    occupied.write_text("a file where the cache's folder would be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(occupied))
    words = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
    done = CliRunner().invoke(
        app, ["tune", str(folder["sd35"]), *words, "--steps", "6", "--calls", "4", "--output", str(tmp_path / "tuned")]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "tuned" / "tuning.json").exists()
    assert "not cached" in done.output
