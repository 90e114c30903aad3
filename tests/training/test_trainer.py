"""Training is the same however it is interrupted and on however many processes."""

import csv
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_run import tiny_run
from tiny_training import (
    free_port,
    processes,
    train_and_die_in_save,
    train_and_die_in_write,
    train_as_rank,
    train_whole,
    trainer,
    write_data,
)

from stablevelocity.errors import UserError
from stablevelocity.models.networks import load_network

MEASURED = ("images_per_s", "memory_mb")  # of the machine, not of the run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


def spawn(target, *arguments) -> int:
    """Run `target` in a process of its own; its exit code (minus the signal that killed it)."""
    child = processes().Process(target=target, args=arguments)
    child.start()
    child.join(900)  # a limit for a test that hangs, not a promise
    assert child.exitcode is not None
    return child.exitcode


def weights(folder: Path, step: int = 24) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights" / f"step-{step:08d}.safetensors")


def metrics(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in MEASURED} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert spawn(train_whole, tiny_run(), data, folder) == 0
    return folder


def assert_same_run(folder: Path, unbroken: Path) -> None:
    expected, found = weights(unbroken), weights(folder)
    assert set(found) == set(expected)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert metrics(folder) == metrics(unbroken)


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

    for wanted in (4, 10, 14, 20):
        child = processes().Process(target=train_whole, args=(run, data, tmp_path))
        child.start()
        while child.is_alive() and newest() < wanted:
            time.sleep(0.001)
        child.kill()
        child.join()
    assert spawn(train_whole, run, data, tmp_path) == 0
    assert_same_run(tmp_path, unbroken)


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


def test_exported_weights_load_and_say_what_they_are(unbroken: Path) -> None:
    network, info = load_network(unbroken / "weights" / "step-00000024.safetensors")
    assert (info["kind"], info["step"], info["num_classes"]) == ("ema", 24, 3)
    x = torch.randn(2, 2, 4, 4)
    velocity, _ = network.joint_velocity(x, torch.randn(2, 6), 0.5, torch.tensor([0, 3]))
    assert velocity.abs().max() > 0


def test_the_average_of_weights_warms_up_as_the_paper_says(data: Path, tmp_path: Path) -> None:
    """Decay (1 + n)/(10 + n) after n updates, by hand over the raw weights of five steps."""
    decays = iter([1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14])
    job = trainer(tiny_run("plain", steps=5), data, tmp_path)
    name = "final_layer.linear.weight"
    average = job.model.state_dict()[name].double().clone()
    update = job.update

    def watched(batch, weight_sum):
        values = update(batch, weight_sum)
        decay = next(decays)
        average.mul_(decay).add_(job.model.state_dict()[name].double(), alpha=1 - decay)
        return values

    job.update = watched
    job.train()
    torch.testing.assert_close(job.ema[name].double(), average, atol=1e-7, rtol=1e-5)
    assert torch.equal(job.ema["pos_embed"], job.model.pos_embed)


def test_accumulation_gives_the_gradient_of_the_whole_batch(data: Path, tmp_path: Path) -> None:
    """Six steps in pieces of 3, 3 and 2 samples against six steps with all 8 at once."""
    results = []
    for micro in (None, 3):
        job = trainer(tiny_run(steps=6), data, tmp_path / str(micro))
        job.settings = job.settings.model_copy(update={"micro_batch": micro})
        job.train()
        results.append({name: value.double() for name, value in job.model.state_dict().items()})
    for name, value in results[0].items():
        if "qkv.bias" not in name:  # the key part has no gradient but rounding, which Adam scales up
            torch.testing.assert_close(results[1][name], value, atol=1e-5, rtol=0)


def test_low_memory_options_train_the_same_network_to_their_precision(data: Path, tmp_path: Path) -> None:
    """Gradient checkpointing exactly; bfloat16 with a half-precision bank within bfloat16's 3 digits."""
    run = tiny_run(steps=6, log_every=6)
    assert spawn(train_whole, run, data, tmp_path / "plain") == 0
    training = run.training.model_copy(update={"gradient_checkpointing": True})
    assert spawn(train_whole, run.model_copy(update={"training": training}), data, tmp_path / "recomputed") == 0
    plain, recomputed = (weights(tmp_path / name, 6) for name in ("plain", "recomputed"))
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)

    assert run.stablevm is not None
    bank = run.stablevm.bank.model_copy(update={"dtype": "float16"})
    half = {
        "training": run.training.model_copy(update={"precision": "bf16"}),
        "stablevm": run.stablevm.model_copy(update={"bank": bank}),
    }
    assert spawn(train_whole, run.model_copy(update=half), data, tmp_path / "half") == 0
    losses = [float(metrics(tmp_path / name)[0]["loss"]) for name in ("plain", "half")]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU; there is none here")
def test_a_compiled_network_trains_as_the_plain_one(data: Path, tmp_path: Path) -> None:
    for name, compiled in (("plain", False), ("compiled", True)):
        assert spawn(train_whole, tiny_run("plain", compile=compiled, steps=8), data, tmp_path / name) == 0
    expected, found = weights(tmp_path / "plain", 8), weights(tmp_path / "compiled", 8)
    assert set(found) == set(expected)
    # Fused operations round otherwise, by 1e-7 of a value; AdamW's first steps have size lr = 1e-3 whatever the
    # gradient, so eight of them may part by a tenth of one step.
    assert max(float((found[name] - expected[name]).abs().max()) for name in expected) < 1e-4


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_what_is_not_finite_stops_in_one_line_before_it_touches_the_weights(
    broken: str, data: Path, tmp_path: Path
) -> None:
    job = trainer(tiny_run("plain"), data, tmp_path)
    make = job.batches.make
    before = {}

    def third_is_broken(read):
        batch = make(read)
        if read.step == 2:
            before.update({name: value.clone() for name, value in job.model.state_dict().items()})
            if broken == "loss":
                batch.target[0] = float("nan")
            else:
                job.model.final_layer.linear.bias.register_hook(lambda gradient: gradient * float("inf"))
        return batch

    job.batches.make = third_is_broken
    with pytest.raises(UserError, match="not finite at step 3; the state before it is in") as caught:
        job.train()
    assert "\n" not in str(caught.value)
    (dump,) = tmp_path.glob("checkpoints/*/non-finite-step-00000003.safetensors")
    kept = load_file(dump)
    for name, value in before.items():
        assert torch.equal(kept[f"model.{name}"], value)


def test_a_first_step_that_is_not_finite_is_dumped_too(data: Path, tmp_path: Path) -> None:
    job = trainer(tiny_run("plain"), data, tmp_path)
    with torch.no_grad():
        job.model.x_embedder.proj.bias.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite at step 1;"):
        job.train()
    assert len(list(tmp_path.glob("checkpoints/*/non-finite-step-00000001.safetensors"))) == 1


def test_one_two_and_four_processes_train_the_same_network(data: Path, tmp_path: Path) -> None:
    run = tiny_run(steps=200, checkpoint_every=200, log_every=100, lr=1e-4)
    for world in (1, 2, 4):
        port, context = free_port(), processes()
        folder = tmp_path / str(world)
        children = [
            context.Process(target=train_as_rank, args=(run, data, folder, rank, world, port)) for rank in range(world)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(900)
        assert [child.exitcode for child in children] == [0] * world

    single = load_file(tmp_path / "1" / "seen-0-of-1.safetensors")
    for world in (2, 4):
        ranks = [load_file(tmp_path / str(world) / f"seen-{k}-of-{world}.safetensors") for k in range(world)]
        for name, expected in single.items():
            if name.startswith("bank."):
                assert all(torch.equal(rank[name], expected) for rank in ranks), name
                continue
            found = torch.cat([rank[name] for rank in ranks])
            if name.endswith("target"):
                # Products over fewer rows may round differently; the draws themselves are exact below.
                torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
            else:
                assert torch.equal(found, expected), name
        worst = {
            name: (value.double() - weights(tmp_path / "1", 200)[name].double()).abs().max().item()
            for name, value in weights(tmp_path / str(world), 200).items()
        }
        assert max(worst.values()) <= 1e-5, sorted(worst.items(), key=lambda item: -item[1])[:4]
        losses = [[float(row["loss"]) for row in metrics(tmp_path / str(w))] for w in (1, world)]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
