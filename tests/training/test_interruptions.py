"""A run that is killed, stopped or without disk goes on from its last checkpoint and ends with the same bits."""

import signal
import threading
import time
from pathlib import Path

import numpy as np
import torch
from forks import processes, spawn
from tiny_run import tiny_run
from tiny_training import (
    assert_same_run,
    train_and_die_in_save,
    train_and_die_in_write,
    train_whole,
    train_with_little_disk,
    trainer,
    weights,
)


def test_killed_at_many_moments_of_saving_a_run_ends_with_the_same_bits(
    data: Path, unbroken: Path, tmp_path: Path
) -> None:
    run, count = tiny_run(), tmp_path / "count"
    assert spawn(train_and_die_in_save, run, data, tmp_path / "counting", 0, count) == 0
    calls = int(count.read_text())
    # From the first call of a save to its last; every one dies in the first save after it resumed.
    for moment in np.linspace(1, calls, 14).round().astype(int):
        code = spawn(train_and_die_in_save, run, data, tmp_path / "run", int(moment))
        assert code == -signal.SIGKILL
    assert spawn(train_whole, run, data, tmp_path / "run") == 0
    assert_same_run(tmp_path / "run", unbroken)


def test_killed_within_the_write_of_a_checkpoint_a_run_ends_with_the_same_bits(
    data: Path, unbroken: Path, tmp_path: Path
) -> None:
    run = tiny_run()
    folder = tmp_path / "run"
    size = max(file.stat().st_size for file in unbroken.glob("checkpoints/*/step-*"))
    for part in (0.0, 0.4, 0.99):
        code = spawn(train_and_die_in_write, run, data, folder, int(part * size))
        assert code == -signal.SIGXFSZ
        assert list(folder.glob("checkpoints/*/step-*")) == []
    assert spawn(train_whole, run, data, folder) == 0
    assert_same_run(folder, unbroken)


def test_killed_at_any_time_a_run_ends_with_the_same_bits(data: Path, unbroken: Path, tmp_path: Path) -> None:
    run = tiny_run()

    def newest() -> int:
        return max((int(file.stem[-8:]) for file in tmp_path.glob("checkpoints/*/step-*")), default=0)

    ends = []
    for wanted in (4, 10, 14, 20):
        child = processes().Process(target=train_whole, args=(run, data, tmp_path))
        child.start()
        while child.is_alive() and newest() < wanted:
            time.sleep(0.001)
        child.kill()
        child.join()
        ends.append(child.exitcode)
    assert -signal.SIGKILL in ends[:3]  # it was alive: the last checkpoint is that of step 20
    assert spawn(train_whole, run, data, tmp_path) == 0
    assert_same_run(tmp_path, unbroken)


def test_a_full_disk_ends_a_run_in_one_line_and_loses_nothing(data: Path, unbroken: Path, tmp_path: Path) -> None:
    run = tiny_run()
    job = trainer(run, data, tmp_path)
    assert not job.train(lambda: job.step == 8)  # the state of step 9 is kept
    size = max(file.stat().st_size for file in unbroken.glob("checkpoints/*/step-*"))
    assert spawn(train_with_little_disk, run, data, tmp_path, size // 2) == 0
    step, message = (tmp_path / "error.txt").read_text().split(" ", 1)
    assert "cannot be written" in message
    assert "File too large" in message
    assert "\n" not in message
    assert 10 <= int(step) <= 12  # that of step 10 failed, which the save of step 12 learns at the latest
    assert spawn(train_whole, run, data, tmp_path) == 0
    assert_same_run(tmp_path, unbroken)


def test_a_checkpoint_that_fails_ends_the_run_before_the_next_is_due(data: Path, tmp_path: Path) -> None:
    """It would train on for the hours until then, for nothing."""
    run = tiny_run("plain", steps=400, checkpoint_every=200, log_every=400)
    assert spawn(train_with_little_disk, run, data, tmp_path, 1000) == 0
    assert 200 <= int((tmp_path / "error.txt").read_text().split()[0]) < 400


def test_a_run_that_is_told_to_stop_has_its_state_on_disk_when_it_returns(data: Path, tmp_path: Path) -> None:
    job = trainer(tiny_run("plain", checkpoint_every=100), data, tmp_path)
    disk = threading.Event()
    job.writer._thread.submit(disk.wait)  # a slow disk
    threading.Timer(0.5, disk.set).start()
    assert not job.train(lambda: job.step == 4)
    assert [file.name for file in tmp_path.glob("checkpoints/*/step-*")] == ["step-00000005.safetensors"]


def test_leftovers_of_killed_writes_are_cleared(data: Path, tmp_path: Path) -> None:
    """A checkpoint of ImageNet takes gigabytes; what killed processes leave must not fill the disk."""
    run = tiny_run()
    assert spawn(train_and_die_in_write, run, data, tmp_path, 1000) == -signal.SIGXFSZ
    assert spawn(train_whole, run, data, tmp_path) == 0
    assert [file.name for file in tmp_path.glob("checkpoints/*/.*")] == []


def test_the_last_two_checkpoints_and_the_milestones_are_kept(unbroken: Path) -> None:
    steps = sorted(int(file.stem[-8:]) for file in unbroken.glob("checkpoints/*/step-*"))
    assert steps == [22, 24]


def test_another_setting_starts_anew_and_the_old_checkpoints_stay(data: Path, tmp_path: Path) -> None:
    for rate in (1e-3, 2e-3):
        trainer(tiny_run("plain", lr=rate, steps=4, milestones=[2]), data, tmp_path).train()
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    first = weights(tmp_path, 4)
    # How often to save is no part of what a run is: nothing is trained again.
    job = trainer(tiny_run("plain", lr=2e-3, steps=4, milestones=[2], checkpoint_every=4), data, tmp_path)
    assert job.resume()
    assert job.step == 4
    assert all(torch.equal(value, first[name]) for name, value in job.ema.items())
