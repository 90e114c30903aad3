import pytest
import torch

from stablevelocity.errors import UserError
from stablevelocity.pretrained.families import FAMILIES, family_named
from stablevelocity.pretrained.settings import BASE_STEPS, SOLVERS, Pretrained


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
