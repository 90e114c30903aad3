"""Checkpoints written beside the run: the state of their step, whole or absent, and no error is lost."""

import threading
from pathlib import Path

import pytest
import torch

from stablevelocity.errors import UserError
from stablevelocity.models.weight_files import load_tensors
from stablevelocity.training.checkpoints import CheckpointWriter, checkpoint_path, checkpoint_steps


def held(writer: CheckpointWriter) -> threading.Event:
    """The writer's thread waits for this event before it does anything else."""
    event = threading.Event()
    writer._thread.submit(event.wait)
    return event


def unwritable(folder: Path) -> Path:
    """A folder in which nothing can be written, not even by root: its name is that of a file."""
    (folder / "file").write_text("")
    return folder / "file"


def test_what_is_written_is_the_state_when_it_was_asked_for(tmp_path: Path) -> None:
    writer, state = CheckpointWriter(tmp_path, set()), {"a": torch.zeros(3), "b": torch.ones(2, dtype=torch.bfloat16)}
    for step in (1, 2):  # the second copy goes into the memory of the first
        event = held(writer)
        writer.write(step, state, {"step": step})
        for value in state.values():
            value += 1
        event.set()
    writer.wait()
    for step in (1, 2):
        found, info = load_tensors(checkpoint_path(tmp_path, step))
        assert info["step"] == step
        assert (found["a"] == step - 1).all()
        assert (found["b"] == step).all()


def test_a_write_waits_for_the_one_before_and_prunes_when_it_is_whole(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, {1})
    for step in (1, 2, 3, 4):
        writer.write(step, {"a": torch.full((2,), float(step))}, {})
        assert set(range(1, step)) - set(checkpoint_steps(tmp_path)) <= {2}
    writer.wait()
    assert checkpoint_steps(tmp_path) == [1, 3, 4]
    assert (load_tensors(checkpoint_path(tmp_path, 3))[0]["a"] == 3).all()


@pytest.mark.parametrize("then", ["check", "wait", "write", "leave"])
def test_an_error_of_the_thread_is_raised_by_whatever_comes_next(then: str, tmp_path: Path) -> None:
    writer, state = CheckpointWriter(unwritable(tmp_path), set()), {"a": torch.zeros(3)}
    writer.write(1, state, {})
    writer._thread.submit(int).result()  # the write has ended
    calls = {
        "check": writer.check,
        "wait": writer.wait,
        "write": lambda: writer.write(2, state, {}),
        "leave": lambda: writer.__exit__(None),
    }
    with pytest.raises(UserError, match="cannot be written") as caught:
        calls[then]()
    assert "\n" not in str(caught.value)


def test_check_waits_for_nothing(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, set())
    event = held(writer)
    writer.write(1, {"a": torch.zeros(3)}, {})
    writer.check()
    assert checkpoint_steps(tmp_path) == []
    event.set()
    writer.wait()


def leave_with_an_error(writer: CheckpointWriter) -> None:
    with writer:
        event = held(writer)
        writer.write(1, {"a": torch.zeros(3)}, {})
        threading.Timer(0.2, event.set).start()
        raise KeyError


def test_leaving_waits_until_it_is_on_disk_and_keeps_the_error_that_leaves(tmp_path: Path) -> None:
    for folder in (tmp_path, unwritable(tmp_path)):
        with pytest.raises(KeyError):
            leave_with_an_error(CheckpointWriter(folder, set()))
    assert checkpoint_steps(tmp_path) == [1]
