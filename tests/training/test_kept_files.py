"""Checkpoints that break, metrics with foreign bytes, other settings beside: a run goes on, and says so in one line."""

import logging
import stat
from pathlib import Path

import pytest
import torch
from forks import spawn
from tiny_run import tiny_run
from tiny_training import assert_same_run, train_whole, trainer

from stablevelocity.errors import UserError
from stablevelocity.models.weight_files import load_tensors, save_tensors
from stablevelocity.records import read_record


def flip(file: Path, position: int, bit: int = 0) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)


def test_one_flipped_bit_anywhere_in_a_file_of_tensors_is_found(tmp_path: Path) -> None:
    file = tmp_path / "step-00000001.safetensors"
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones((), dtype=torch.int64)}
    save_tensors(file, tensors, {"step": 1, "hash": "x"})
    whole = file.read_bytes()
    assert all(torch.equal(load_tensors(file)[0][name], value) for name, value in tensors.items())
    assert load_tensors(file)[1] == {"step": 1, "hash": "x"}
    for position in range(len(whole)):
        flip(file, position, position % 8)
        with pytest.raises(UserError, match="is not whole"):
            load_tensors(file, checksum=True)
        file.write_bytes(whole)


def interrupted(data: Path, folder: Path) -> list[Path]:
    job = trainer(tiny_run(), data, folder)
    assert not job.train(lambda: job.step == 8)
    return sorted(folder.glob("checkpoints/*/step-*.safetensors"))


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "foreign"])
def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_is_used(
    damage: str, data: Path, unbroken: Path, tmp_path: Path, caplog
) -> None:
    before, last = interrupted(data, tmp_path)[-2:]
    if damage == "flipped":
        flip(last, last.stat().st_size - 100)
    else:
        last.write_bytes({"cut": last.read_bytes()[:5000], "empty": b"", "foreign": b"\0" * 5000}[damage])
    caplog.set_level(logging.INFO, "stablevelocity")
    job = trainer(tiny_run(), data, tmp_path)
    assert job.resume()
    assert job.step == int(before.stem[-8:])
    told = [record.message for record in caplog.records if str(last) in record.message]
    assert len(told) == 1
    assert "\n" not in told[0]
    assert last.with_name(last.name + ".damaged").exists()
    assert spawn(train_whole, tiny_run(), data, tmp_path) == 0
    assert_same_run(tmp_path, unbroken)


def test_a_run_whose_checkpoints_are_all_damaged_starts_anew(data: Path, unbroken: Path, tmp_path: Path) -> None:
    for file in interrupted(data, tmp_path):
        flip(file, file.stat().st_size // 2)
    assert spawn(train_whole, tiny_run(), data, tmp_path) == 0
    assert_same_run(tmp_path, unbroken)


def test_a_milestone_that_is_damaged_is_trained_again(data: Path, tmp_path: Path) -> None:
    run = tiny_run("plain", steps=12, milestones=[4, 8], checkpoint_every=2)
    job = trainer(run, data, tmp_path / "broken")
    job.train(lambda: job.step == 10)
    milestone = next(tmp_path.glob("broken/checkpoints/*/step-00000008.safetensors"))
    flip(milestone, milestone.stat().st_size - 10)
    with pytest.raises(UserError, match="start again"):
        trainer(run, data, tmp_path / "broken").train()
    again = trainer(run, data, tmp_path / "broken")
    assert again.resume()
    assert again.step == 4
    for name in ("broken", "whole"):
        trainer(run, data, tmp_path / name).train()
    for step in (4, 8, 12):
        files = [tmp_path / name / "weights" / f"step-{step:08d}.safetensors" for name in ("broken", "whole")]
        new, old = (load_tensors(file)[0] for file in files)
        assert all(torch.equal(new[name], old[name]) for name in old)


@pytest.mark.parametrize("foreign", [b"\0" * 40, b"\xff\xfe\x80garbage,,\n", b"9,1\n", b"x,y,z\n1,2\n"])
def test_foreign_bytes_at_the_end_of_the_metrics_are_left_out(
    foreign: bytes, data: Path, unbroken: Path, tmp_path: Path
) -> None:
    interrupted(data, tmp_path)
    with open(next(tmp_path.glob("checkpoints/*/metrics.csv")), "ab") as file:
        file.write(foreign)
    assert spawn(train_whole, tiny_run(), data, tmp_path) == 0
    assert_same_run(tmp_path, unbroken)


@pytest.mark.parametrize("change", [{"steps": 6}, {"micro_batch": 4}])
def test_checkpoints_of_another_setting_are_spoken_of_in_one_line(
    change: dict[str, int], data: Path, tmp_path: Path, caplog
) -> None:
    trainer(tiny_run("plain", steps=4), data, tmp_path).train()
    old = next(path.parent for path in tmp_path.glob("checkpoints/*/step-*"))
    caplog.set_level(logging.INFO, "stablevelocity")
    trainer(tiny_run("plain", **{"steps": 4} | change), data, tmp_path).train()
    told = [record.message for record in caplog.records if old.name in record.message]
    assert len(told) == 1
    assert "starts at step 0" in told[0]
    assert "step 4" in told[0]


def test_results_follow_the_umask_and_have_a_record_of_what_they_were_made_from(data: Path, unbroken: Path) -> None:
    plain = unbroken / "plain"
    plain.touch()
    files = [file for file in unbroken.rglob("*.safetensors")]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {stat.S_IMODE(plain.stat().st_mode)}
    record = read_record(unbroken / "metrics.csv.provenance.json")
    weights = unbroken / "weights" / "step-00000024.safetensors"
    assert set(record.outputs) == {unbroken / "metrics.csv", weights}
    assert record.outputs[weights]["mtime_ns"] == weights.stat().st_mtime_ns
    assert {file.resolve() for file in record.inputs} == {
        (data / kind / "train.json").resolve() for kind in ("latents", "features")
    }


def test_a_run_that_two_codes_trained_says_so(data: Path, tmp_path: Path, monkeypatch) -> None:
    run = tiny_run("plain", steps=6, checkpoint_every=2)
    for code in ("first", "second"):
        monkeypatch.setattr("stablevelocity.training.trainer.trainers_code", lambda code=code: code)
        job = trainer(run, data, tmp_path)
        job.train(lambda job=job: job.step == 3)
    assert read_record(tmp_path / "metrics.csv.provenance.json").code == "first+second"
