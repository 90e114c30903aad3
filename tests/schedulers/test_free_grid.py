"""A free grid, a number of calls, and what was tuned, as options of the schedulers."""

import json

import numpy as np
import pytest
import torch
from scheduler_cases import noise, run

from stablevelocity.errors import UserError
from stablevelocity.schedulers.tuned import base_config, remember


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def made(scheduler, steps=30):
    scheduler.set_timesteps(steps)
    return scheduler


def test_the_thinned_levels_as_a_free_grid_are_the_control_arm(base):
    control = made(base.control(**base.config))
    free = made(base.stablevs(**base.config, grid=control.sigmas[:-1].tolist(), xi=0.0))
    assert torch.equal(free.sigmas, control.sigmas)
    assert torch.equal(free.timesteps, control.timesteps)
    assert all(torch.equal(a, b) for a, b in zip(run(free, noise(2, 8)), run(control, noise(2, 8)), strict=True))


def test_any_levels_are_taken(base):
    scheduler = made(base.stablevs(**base.config, grid=[0.97, 0.7, 0.31], xi=0.5))
    np.testing.assert_allclose(scheduler.sigmas, [0.97, 0.7, 0.31, 0], atol=1e-7)
    # The multistep schedulers of diffusers round timesteps down.
    np.testing.assert_allclose(scheduler.timesteps, [970, 700, 310], atol=1)
    states = run(scheduler, noise(2, 8))
    assert len(states) == 4
    assert bool(torch.isfinite(states[-1]).all())


@pytest.mark.parametrize("calls", [12, 20, 29, 30, 40])
def test_as_many_calls_as_asked_for_and_no_more_than_there_are(base, calls):
    scheduler = made(base.stablevs(**base.config, calls=calls))
    assert len(scheduler.timesteps) == min(calls, 30)
    if calls == 20:  # 11 stand above 0.85
        assert torch.equal(scheduler.sigmas, made(base.stablevs(**base.config, low_steps=9)).sigmas)


def test_switched_off_grid_and_calls_do_nothing(base):
    for option in ({"grid": [0.9, 0.5]}, {"calls": 12}):
        stock = made(base.stock(**base.config))
        off = made(base.stablevs(**base.config, **option, enabled=False))
        assert all(torch.equal(a, b) for a, b in zip(run(off, noise(2, 8)), run(stock, noise(2, 8)), strict=True))


def test_a_saved_grid_comes_back(base, tmp_path):
    base.stablevs(**base.config, grid=[0.97, 0.7, 0.31], xi=0.0).save_pretrained(tmp_path)
    loaded = made(base.stablevs.from_pretrained(tmp_path))
    np.testing.assert_allclose(loaded.sigmas, [0.97, 0.7, 0.31, 0], atol=1e-7)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"grid": []}, "empty"),
        ({"grid": [0.5, 0.9]}, "decrease strictly"),
        ({"grid": [1.2, 0.5]}, "decrease strictly"),
        ({"grid": [0.9], "calls": 5}, "one of the two"),
    ],
)
def test_options_without_meaning_are_refused(base, options, expected):
    with pytest.raises(UserError, match=expected):
        base.stablevs(**base.config, **options)


def test_fewer_calls_than_levels_above_xi_are_refused(base):
    with pytest.raises(UserError, match="more than 11 calls"):
        made(base.stablevs(**base.config, calls=11))


def tuning(base, **changes):
    config = dict(base.stock(**base.config).config)
    return {
        "pipeline": "mine",
        "arguments": {"guidance_scale": 4.5},
        "scheduler": base.stock.__name__,
        "class": base.stablevs.__name__,
        "base_config": base_config(config),
        "calls": 14,
        "options": {"xi": 0.91, "low_steps": 7},
    } | changes


def test_auto_takes_what_was_tuned_from_a_file_or_from_the_cache(base, tmp_path):
    config = base.stock(**base.config).config
    file = tmp_path / "tuning.json"
    file.write_text(json.dumps(tuning(base)))
    remember(tuning(base, options={"xi": 0.6, "low_steps": 4}))
    for given, expected in (({"tuning": file}, (0.91, 7)), ({}, (0.6, 4))):
        for source in (config, base.stock(**base.config)):  # a scheduler itself, too
            scheduler = base.stablevs.from_config(source, xi="auto", **given)
            assert (scheduler.config.xi, scheduler.config.low_steps) == expected


def test_a_user_without_a_home_is_told_what_to_set(base, monkeypatch):
    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", none)
    with pytest.raises(OSError, match="this user has no home folder; set XDG_CACHE_HOME"):
        base.stablevs.from_config(base.stock(**base.config).config, xi="auto")


def test_auto_that_cannot_be_had_says_why_in_one_line(base, tmp_path):
    config, file = base.stock(**base.config).config, tmp_path / "tuning.json"

    def refused(expected, **options):
        with pytest.raises(UserError, match=expected) as error:
            base.stablevs.from_config(config, **options)
        assert "\n" not in str(error.value)

    refused("stablevelocity tune", xi="auto")
    refused("no such file", xi="auto", tuning=tmp_path / "none.json")
    refused("is a folder, expected its tuning.json", xi="auto", tuning=tmp_path)
    refused("xi='auto' chooses calls too", xi="auto", tuning=file, calls=12)
    refused("for xi='auto' only", tuning=file)
    for changes, expected in (
        ({"options": None}, "keep the base scheduler"),
        ({"class": "Other"}, "made for Other"),
        ({"base_config": {**tuning(base)["base_config"], "num_train_timesteps": 7}}, "num_train_timesteps differs"),
    ):
        file.write_text(json.dumps(tuning(base, **changes)))
        refused(expected, xi="auto", tuning=file)
    remember(tuning(base))
    remember(tuning(base))  # in its place
    base.stablevs.from_config(config, xi="auto")
    remember(tuning(base, arguments={"guidance_scale": 1.0}))
    remember(tuning(base, pipeline="another"))
    refused("3 tunings", xi="auto")
