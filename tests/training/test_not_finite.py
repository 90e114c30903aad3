"""What is not finite stops a run, on all processes, before it reaches the weights; a scaler's skipped steps do not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import processes
from safetensors.torch import load_file
from tiny_run import tiny_run
from tiny_training import free_port, metrics, train_broken_on_the_last_rank, trainer

from stablevelocity.errors import UserError
from stablevelocity.training.trainer import Trainer


@pytest.mark.parametrize("broken", ["target", "gradient", "loss"])
def test_what_is_not_finite_stops_in_one_line_before_it_touches_the_state(
    broken: str, data: Path, tmp_path: Path
) -> None:
    """A NaN in everything, an infinite gradient of a finite loss, an infinite loss with a finite gradient."""
    job = trainer(tiny_run(), data, tmp_path)
    make, losses = job.batches.make, job.losses
    before = {}

    def third_is_broken(read):
        batch = make(read)
        if read.step == 2:
            before.update({name: value.clone() for name, value in job._state().items()})
            if broken == "target":
                batch.target[0] = float("nan")
            elif broken == "gradient":
                job.model.final_layer.linear.bias.register_hook(lambda gradient: gradient * float("inf"))
            else:
                job.losses = lambda *given: losses(*given) | {"loss": losses(*given)["loss"] + float("inf")}
        return batch

    job.batches.make = third_is_broken
    with pytest.raises(UserError, match="not finite at step 3; the state before it is in") as caught:
        job.train()
    assert "\n" not in str(caught.value)
    (dump,) = tmp_path.glob("checkpoints/*/non-finite-step-00000003.safetensors")
    kept = load_file(dump)
    assert any(name.startswith("optimizer.exp_avg.") for name in before)
    for name, value in before.items():
        assert torch.equal(kept[name], value), name


def test_a_first_step_that_is_not_finite_is_dumped_too(data: Path, tmp_path: Path) -> None:
    job = trainer(tiny_run("plain"), data, tmp_path)
    with torch.no_grad():
        job.model.x_embedder.proj.bias.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite at step 1;"):
        job.train()
    assert len(list(tmp_path.glob("checkpoints/*/non-finite-step-00000001.safetensors"))) == 1


def scaled(data: Path, folder: Path, broken: Callable[[int], bool], **training) -> Trainer:
    """A run with the gradient scaler of fp16, whose gradient is NaN at the steps that are `broken`."""
    job = trainer(tiny_run("plain", **training), data, folder)
    job.accelerator.scaler = torch.amp.GradScaler("cpu")
    bias = job.model.final_layer.linear.bias
    bias.register_hook(lambda gradient: gradient * (float("nan") if broken(job.step) else 1))
    return job


def test_steps_that_the_scaler_skips_are_counted_and_leave_the_weights_alone(data: Path, tmp_path: Path) -> None:
    """Steps 3 to 6 of 9 are skipped: rows 3, 6 and 9 count 1, 3 and 0 of them, and none has a NaN where it measured."""
    job = scaled(data, tmp_path, lambda step: 2 <= step < 6, steps=9, checkpoint_every=2)
    job.train()
    rows = metrics(tmp_path)
    assert [row["skipped"] for row in rows] == ["1", "3", "0"]
    assert [row["grad_norm"] for row in rows].count("nan") == 1  # of row 6, where no step was made
    assert rows[1]["grad_norm"] == "nan"
    assert all(np.isfinite(float(row["loss"])) for row in rows)
    assert job.accelerator.scaler.get_scale() == 2.0**16 / 2**4
    kept = sorted(tmp_path.glob("checkpoints/*/step-*"))
    assert load_file(kept[-1])["optimizer.step.final_layer.linear.bias"].item() == 9 - 4


def test_a_gradient_that_overflows_at_every_step_ends_the_run(data: Path, tmp_path: Path) -> None:
    job = scaled(data, tmp_path, lambda step: step >= 4, steps=400)
    with pytest.raises(UserError, match="not finite at step 37, as at the 32 steps before it") as caught:
        job.train()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "weights").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_fp16_without_a_gpu_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training\.precision fp16 needs a GPU"):
        trainer(tiny_run("plain", precision="fp16"), data, tmp_path)


def test_a_loss_of_one_process_that_is_not_finite_stops_all_before_an_update(data: Path, tmp_path: Path) -> None:
    run, port, context = tiny_run("plain"), free_port(), processes()
    children = [
        context.Process(target=train_broken_on_the_last_rank, args=(run, data, tmp_path, rank, 2, port))
        for rank in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(900)
    (dump,) = tmp_path.glob("checkpoints/*/non-finite-step-00000003.safetensors")
    before = {name[6:]: value for name, value in load_file(dump).items() if name.startswith("model.")}
    second = load_file(next(tmp_path.glob("checkpoints/*/step-00000002.safetensors")))
    for rank in range(2):
        assert "not finite at step 3" in (tmp_path / f"error-{rank}.txt").read_text()
        for name, value in load_file(tmp_path / f"{rank}.st").items():
            assert torch.equal(value, before[name])
            assert torch.equal(value, second[f"model.{name}"])
