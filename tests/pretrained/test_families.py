import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from stablevelocity.errors import UserError
from stablevelocity.pretrained.families import FAMILIES, family_named
from stablevelocity.study.pretrained_settings import BASE_STEPS, SOLVERS, Pretrained


@pytest.mark.parametrize(
    "name, gate",
    [("sd35", "accept"), ("flux", "accept"), ("qwen-image", "no licence gate"), ("wan22", "no licence gate")],
)
def test_absent_weights_end_in_one_line_with_all_that_is_needed(name, gate, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    family = FAMILIES[name]
    with pytest.raises(UserError) as refusal:
        family.load()
    message = str(refusal.value)
    assert "\n" not in message
    for part in (family.hub_id, family.revision, gate, f"stablevelocity download {family.hub_id} --revision"):
        assert part in message


def test_a_folder_that_is_no_pipeline_is_named(tmp_path):
    with pytest.raises(UserError, match="not a whole pipeline"):
        FAMILIES["sd35"].load(tmp_path)


def with_encoder(folder, target, shift):
    """A copy of the tiny SD3 folder as an original: with a text encoder, and the given shift in its scheduler."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    shutil.copytree(folder, target)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    CLIPTextModelWithProjection(CLIPTextConfig(**small, vocab_size=9)).save_pretrained(target / "text_encoder")
    index = json.loads((target / "model_index.json").read_text())
    index["text_encoder"] = ["transformers", "CLIPTextModelWithProjection"]
    (target / "model_index.json").write_text(json.dumps(index))
    config = json.loads((target / "scheduler" / "scheduler_config.json").read_text())
    (target / "scheduler" / "scheduler_config.json").write_text(json.dumps(config | {"shift": shift}))
    return target


def test_an_original_with_another_schedule_is_named_in_one_line(folders, tmp_path):
    with pytest.warns(UserWarning, match=r"not the paper's \(shift 1\.0 instead of 3\.0\)") as caught:
        FAMILIES["sd35"].load(with_encoder(folders["sd35"], tmp_path / "other", 1.0), torch.float32)
    assert "\n" not in str(next(w.message for w in caught if "paper's" in str(w.message)))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not the paper's")
        FAMILIES["sd35"].load(with_encoder(folders["sd35"], tmp_path / "same", 3.0), torch.float32)
        # Tiny models scale their range of tokens; that is meant.
        FAMILIES["flux"].load(folders["flux"], torch.float32)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_familys_schedule_has_the_papers_step_counts(name):
    # docs/paper.md#stablevs: 11 + 9, 11 + 9, 8 + 9, 11 + 9 at 4,096 tokens.
    family = FAMILIES[name]
    stock = UniPCMultistepScheduler if name == "wan22" else FlowMatchEulerDiscreteScheduler
    base = stock(**family.scheduler)
    assert family.other_schedule(base.config) == []
    scheduler = family.arm(f"{SOLVERS[name][0]}-stablevs").scheduler(base.config)
    if family.scheduler.get("use_dynamic_shifting"):
        low, high = family.scheduler["base_shift"], family.scheduler["max_shift"]
        least, most = family.scheduler["base_image_seq_len"], family.scheduler["max_image_seq_len"]
        mu = low + (high - low) * (4096 - least) / (most - least)
        scheduler.set_timesteps(sigmas=list(np.linspace(1, 1 / 30, 30)), mu=mu)
    else:
        scheduler.set_timesteps(30)
    high_steps = int((scheduler.sigmas[:-1] >= np.float32(0.85)).sum())
    assert (high_steps, len(scheduler.timesteps) - high_steps) == {"qwen-image": (8, 9)}.get(name, (11, 9))


def test_revisions_are_commits():
    assert all(len(f.revision) == 40 and int(f.revision, 16) for f in FAMILIES.values())


def test_names_of_arms_mean_what_they_say():
    family = FAMILIES["sd35"]
    arm = family.arm("dpm-stablevs-xi0.70", low_steps=5, noise_factor=0.2)
    assert (arm.solver, arm.low, arm.steps, arm.xi, arm.low_steps, arm.noise_factor) == (
        "dpm",
        "stablevs",
        30,
        0.7,
        5,
        0.2,
    )
    assert family.arm("euler-short").steps == 20
    assert FAMILIES["qwen-image"].arm("euler-short").steps == 17
    assert FAMILIES["wan22"].arm("unipc-control", noise_factor=0.2).noise_factor == 0.0


@pytest.mark.parametrize("name", ["unipc-long", "euler-fast", "euler", ""])
def test_an_arm_that_a_family_does_not_have_is_refused(name):
    with pytest.raises(UserError, match="expected one of"):
        FAMILIES["sd35"].arm(name)


def tiny_study(**keys):
    return {"families": {"sd35": {"tiny": {}}, "wan22": {"tiny": {}}}, **keys}


def test_arms_of_a_sweep_run_at_the_xi_that_their_names_say():
    study = Pretrained.model_validate(tiny_study(xi_sweep=[0.855, 0.8549999, 0.85, 0.7]))
    swept = [name for name in study.arm_names("sd35") if "-xi" in name]
    assert len(set(swept)) == len(swept) == 3
    assert [FAMILIES["sd35"].arm(name).xi for name in swept] == [0.855, 0.8549999, 0.7]


def test_a_value_of_xi_stands_in_a_sweep_once():
    with pytest.raises(ValueError, match=r"xi_sweep\s+Each value should stand there once"):
        Pretrained.model_validate(tiny_study(xi_sweep=[0.7, 0.70]))


@pytest.mark.parametrize("noise_factor, drawn", [(0.0, False), (0.3, True)])
def test_the_control_arm_is_left_out_only_where_it_equals_stablevs(noise_factor, drawn):
    study = Pretrained.model_validate(tiny_study(noise_factor=noise_factor))
    assert ("euler-control-xi0.7" in study.arm_names("sd35")) == drawn
    assert "unipc-control-xi0.7" in study.arm_names("wan22")


def test_an_unknown_family_is_refused():
    with pytest.raises(UserError, match="sd35, flux, qwen-image, wan22"):
        family_named("sd3")


def test_every_arm_of_a_study_makes_a_scheduler_with_its_papers_steps(family, folders):
    study = Pretrained.model_validate({"families": {family.name: {"tiny": {}}}})
    config = family.load(folders[family.name], torch.float32).scheduler.config
    for name in study.arm_names(family.name):
        arm = family.arm(name)
        scheduler = arm.scheduler(config)
        assert scheduler.config.enabled == (arm.low != "base")
        if arm.solver != "euler":
            assert scheduler.config.prediction_type == "flow_prediction"
            assert scheduler.config.flow_shift == 3.0
    assert set(SOLVERS) == set(BASE_STEPS) == set(FAMILIES)
