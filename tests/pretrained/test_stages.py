"""Devices of jobs, what pictures belong to, and scores of the originals."""

import math
import os
import threading
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from stablevelocity.errors import UserError
from stablevelocity.files import write_json
from stablevelocity.pretrained import stages
from stablevelocity.pretrained.benchmarks.geneval import DetectedObject
from stablevelocity.pretrained.families import FAMILIES
from stablevelocity.pretrained.generate import generate
from stablevelocity.pretrained.picture_files import read_pictures, shrink, write_comparison
from stablevelocity.pretrained.prompts import digit_prompts, write_prompts
from stablevelocity.pretrained.score import similarity_to_long_run
from stablevelocity.study.pretrained_settings import Pretrained


@pytest.fixture
def two_devices(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"GPU-{index}"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))


@pytest.mark.usefixtures("two_devices")
def test_jobs_at_one_time_have_an_accelerator_each():
    with stages.own_device(1) as first:
        assert first == "cuda:1"
        # Its turn would be the same one, as another family's first shard's is.
        with stages.own_device(3) as second:
            assert second == "cuda:0"
            third: list[str] = []

            def wait():
                with stages.own_device(5) as device:
                    third.append(device)

            waiting = threading.Thread(target=wait)
            waiting.start()
            waiting.join(0.3)
            assert third == []
    waiting.join(10)
    assert third == ["cuda:1"]


@pytest.mark.usefixtures("two_devices")
def test_a_device_is_not_locked_in_a_folder_or_through_a_link_of_another_user(tmp_path):
    """The folder is shared and its name can be known: another may have put something there first."""
    folder = tmp_path / f"stablevelocity-{os.geteuid()}"
    (tmp_path / "victim").write_text("precious")
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(UserError, match="others may write in it"), stages.own_device(0):
        pass
    folder.chmod(0o700)
    (folder / "GPU-0.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match=r"GPU-0\.lock: cannot be locked"), stages.own_device(0):
        pass
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.usefixtures("two_devices")
def test_a_device_that_a_job_is_told_is_taken():
    with stages.own_device(0, "cuda:1") as device, stages.own_device(0, "cuda:1") as again:
        assert device == again == "cuda:1"


def test_without_an_accelerator_jobs_run_on_the_processor(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with stages.own_device(3) as device:
        assert device == "cpu"


def test_pictures_belong_to_the_content_of_their_folder_not_to_its_place(folders, tmp_path):
    import shutil

    entry = FAMILIES["flux"]
    copy = shutil.copytree(folders["flux"], tmp_path / "copy")
    named = stages.source_of(entry, folders["flux"], checksums=False)
    assert stages.source_of(entry, copy, checksums=False) == named
    (copy / "scheduler" / "scheduler_config.json").write_text("{}")
    assert stages.source_of(entry, copy, checksums=False) != named
    assert stages.source_of(entry, folders["sd35"], checksums=False) != named
    assert f"{entry.hub_id}@{entry.revision}" in stages.source_of(entry, None, checksums=False)


def originals(tmp_path, name="sd35", **keys):
    """A study of an original whose two prompts of one image are drawn by hand: black, and white after StableVS."""
    study = Pretrained.model_validate({"families": {name: {"prompts": "given.jsonl", "images": 1, **keys}}})
    prompts = tmp_path / "prompts.jsonl"
    write_prompts(prompts, digit_prompts(1, 0)[:2])
    timing = {"end_to_end": 1.0, "denoising": 0.9, "low_regime": 0.3, "steps": 20, "low_steps": 9, "pictures": 2}
    arms = ["euler-long", "euler-short", "euler-stablevs", "euler-control"]
    write_json(tmp_path / "samples" / "shard-00000.json", dict.fromkeys(arms, timing))
    from stablevelocity.pretrained.picture_files import save_picture

    for arm in arms:
        for p, wanted in enumerate(digit_prompts(1, 0)[:2]):
            grey = np.full((8, 8, 3), 255 if "stablevs" in arm else 0, np.uint8)
            save_picture(FAMILIES[name], tmp_path / "samples" / arm, p, 0, wanted, grey)
    return study, prompts


def scored(study, prompts, tmp_path):
    shards, outputs = [tmp_path / "samples" / "shard-00000.json"], (tmp_path / "metrics.csv", tmp_path / "pairs.csv")
    stages.score_family(study, "sd35", prompts, shards, *outputs)
    return pd.read_csv(tmp_path / "metrics.csv").set_index("arm")


def test_originals_are_scored_where_the_detector_is(tmp_path, monkeypatch):
    study, prompts = originals(tmp_path)
    wanted = {clause["class"]: clause for entry in digit_prompts(1, 0)[:2] for clause in entry["include"]}

    def sees_all_in_white(image, tag):
        color = {name: clause.get("color", "red") for name, clause in wanted.items()}
        one = [DetectedObject(name, (0.0, 0.0, 1.0, 1.0), 1.0, lambda c=color[name]: c) for name in wanted]
        return one * 9 if image.mean() == 255 else []

    monkeypatch.setattr(stages, "load_detector", lambda device: sees_all_in_white)
    table = scored(study, prompts, tmp_path)
    assert table["score"].to_dict() == {
        "euler-long": 0.0,
        "euler-short": 0.0,
        "euler-stablevs": 1.0,
        "euler-control": 0.0,
    }
    # Black for the long run and the base, white and full of objects for StableVS: every picture's layout flips.
    pairs = pd.read_csv(tmp_path / "pairs.csv").set_index("against")
    assert set(pairs["arm"]) == {"euler-stablevs"}
    assert pairs.loc["short", ["score", "flips"]].to_numpy().tolist() == [[1, 1]] * 2
    assert pairs.loc["long", "score"].tolist() == [1, 1]
    assert pairs.loc["short", "psnr"].tolist() == [0 - 60] * 2  # 0 dB against the cap of equal pictures


def test_originals_without_the_detectors_weights_have_no_score_and_one_line_says_so(tmp_path, monkeypatch, caplog):
    study, prompts = originals(tmp_path)

    def absent(device):
        raise UserError("no/such is not on this machine")

    monkeypatch.setattr(stages, "load_detector", absent)
    table = scored(study, prompts, tmp_path)
    assert table["score"].isna().all()
    assert [record.getMessage() for record in caplog.records] == [
        "sd35: no GenEval score (NaN): no/such is not on this machine"
    ]
    # The rest of the row is there all the same: white against black.
    assert table["psnr"]["euler-stablevs"] == pytest.approx(0)


def test_similarity_reads_a_prompt_at_a_time_and_is_the_same_as_at_once(load, tmp_path, monkeypatch):
    from stablevelocity.evaluation.similarity import compare_images
    from stablevelocity.pretrained import score

    family = FAMILIES["wan22"]
    from stablevelocity.pretrained.prompts import digit_video_prompts

    prompts, pipeline = digit_video_prompts(3, 0), load(family)
    for kind in ("long", "stablevs"):
        generate(family, pipeline, family.arm(f"unipc-{kind}"), prompts, tmp_path / kind, images=2, seed=0, batch=6)
    most = []

    def counted(*arguments):
        most.append(len(read_pictures(*arguments)))
        return read_pictures(*arguments)

    monkeypatch.setattr(score, "read_pictures", counted)
    rows = similarity_to_long_run(family, tmp_path / "stablevs", tmp_path / "long", prompts, 2)
    assert max(most) == 2
    at_once = [
        read_pictures(family, tmp_path / kind, prompts, 2).reshape(-1, 32, 32, 3) for kind in ("stablevs", "long")
    ]
    named = compare_images(*at_once).assign(prompt=np.repeat(range(3), 10), image=np.tile(np.repeat(range(2), 5), 3))
    pd.testing.assert_frame_equal(rows, named, check_exact=False, rtol=1e-12)


def test_side_by_side_files_stay_small(tmp_path):
    # Noise is the hardest picture to compress: eight videos of it, 17 frames of 120 x 160.
    noise = np.random.default_rng(0).integers(0, 256, (2, 17, 120, 160, 3), dtype=np.uint8)
    video, preview = tmp_path / "a.mp4", tmp_path / "a.gif"
    write_comparison(video, preview, [noise] * 4, 16)
    from PIL import Image

    assert preview.stat().st_size <= 500_000
    with Image.open(preview) as animation:
        # Every second frame, as long as two, and the stop at the end.
        assert animation.n_frames == 9
        assert animation.info["duration"] == pytest.approx(2000 / 16, abs=10)


def test_pictures_shrink_to_the_wanted_side_and_small_ones_stay():
    large = np.zeros((2, 3, 480, 640, 3), np.uint8)
    large[..., 320:, :] = 255
    small = shrink(large, 256)
    assert small.shape == (2, 3, 192, 256, 3)
    assert (small[..., :120, :] == 0).all()
    assert (small[..., 136:, :] == 255).all()
    assert shrink(small, 256) is small
    assert math.prod(shrink(large[0, 0], 1000).shape) == 480 * 640 * 3
