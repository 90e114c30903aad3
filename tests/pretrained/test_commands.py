"""The commands for pretrained models, as a shell runs them."""

import os
import subprocess
import sys

import pytest

from stablevelocity.cli.checks import check_machine
from stablevelocity.errors import UserError
from stablevelocity.pretrained.families import FAMILIES
from stablevelocity.pretrained.picture_files import read_pictures
from stablevelocity.pretrained.prompts import digit_prompts, write_prompts
from stablevelocity.study import load_study, parse_study


def command(*arguments, cache):
    """Without network and without weights."""
    return subprocess.run(
        [sys.executable, "-m", "stablevelocity.cli.main", *map(str, arguments)],
        env={**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "others",
    [
        [],
        ["--prompts", "gone.jsonl", "--output", "out", "--arm", "no-such-arm", "--offload", "disk"],
        ["--images", "many"],
    ],
    ids=["nothing else", "wrong options", "not a number"],
)
def test_without_weights_and_network_one_line_says_how_to_get_them(others, tmp_path):
    done = command("generate", "--family", "sd35", *others, cache=tmp_path)
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert len(lines) == 1
    family = FAMILIES["sd35"]
    for part in (
        family.hub_id,
        family.revision,
        "gated: accept the Stability AI Community Licence",
        f"stablevelocity download {family.hub_id} --revision {family.revision}",
    ):
        assert part in lines[0]


def test_what_is_missing_is_said_before_torch_and_diffusers_are_imported():
    code = (
        "import stablevelocity.pretrained.families, sys; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_that_is_no_pipeline_comes_before_other_options_too(tmp_path):
    done = command("generate", "--folder", tmp_path, "--family", "sd35", cache=tmp_path)
    assert done.returncode == 1
    assert f"{tmp_path} is not a whole pipeline folder" in done.stderr


def test_generate_does_not_keep_pictures_of_another_model(folders, tmp_path):
    import shutil

    import torch

    from stablevelocity.cli.verbs.pretrained import generate
    from stablevelocity.pretrained.tiny import TINY_FAMILIES

    tiny = TINY_FAMILIES["flux"]
    torch.manual_seed(1)
    tiny.save(tiny.transformer(), tiny.autoencoder(), tmp_path / "other")
    prompts = tmp_path / "prompts.jsonl"
    write_prompts(prompts, digit_prompts(1, 0)[:1])

    def pictures(folder):
        # The verb itself, without a process: each would import diffusers anew.
        generate("flux", prompts, tmp_path / "out", ["euler-stablevs"], folder, images=1, device="cpu")
        return read_pictures(FAMILIES["flux"], tmp_path / "out" / "euler-stablevs", digit_prompts(1, 0)[:1], 1)

    first = pictures(folders["flux"])
    records = tmp_path / "out" / "euler-stablevs" / "records" / "000-00000.json"
    written = records.stat().st_mtime_ns
    # Files copied with their times are the same weights.
    shutil.copytree(folders["flux"], tmp_path / "copy")
    assert (pictures(tmp_path / "copy") == first).all()
    assert records.stat().st_mtime_ns == written
    assert (pictures(tmp_path / "other") != first).any()


@pytest.mark.parametrize("key", ["prompts", "folder"])
def test_a_missing_prompt_file_or_folder_is_named_before_the_first_job(key, tmp_path):
    (tmp_path / "there.jsonl").write_text("")
    family = {"prompts": str(tmp_path / "there.jsonl"), key: "/no/such/thing"}
    study = parse_study({"name": "x", "pretrained": {"families": {"sd35": family}}})
    with pytest.raises(UserError, match=rf"^pretrained\.families\.sd35\.{key}: there is no '/no/such/thing'$"):
        check_machine(study)
    check_machine(load_study("config/pretrained-tiny.yaml"))
