"""Steps do what their settings say, on however many processes."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import processes, spawn
from safetensors.torch import load_file
from tiny_run import tiny_run
from tiny_training import free_port, metrics, train_as_rank, train_whole, trainer, weights

from stablevelocity.data.shards import write_manifest, write_shard
from stablevelocity.models.networks import load_network


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


def test_the_next_steps_are_read_by_other_threads_while_a_step_is_computed(data: Path, tmp_path: Path) -> None:
    job = trainer(tiny_run(steps=4), data, tmp_path)
    read, features, make = job.batches.read, job.features, job.batches.make
    assert features is not None
    read_features = features.read
    done = {step: threading.Event() for step in range(8)}
    threads = []

    def watched(step):
        result = read(step)
        done[step].set()
        return result

    def noted(*given, **named):
        threads.append(threading.current_thread())
        return read_features(*given, **named)

    def waits_for_the_next(step_data):
        # Nothing else runs on this thread: without readers of their own these steps would never be there.
        assert done[step_data.step + 1].wait(60)
        return make(step_data)

    job.batches.read, job.batches.make, features.read = watched, waits_for_the_next, noted
    job.train()
    assert len(threads) >= 4
    assert threading.main_thread() not in threads


def test_tokens_are_those_of_the_image_that_is_noised_also_after_an_interruption(tmp_path: Path) -> None:
    """Latent and tokens of image i are i: what is noised and what it is aligned with must be the same number."""
    images, shape = 96, (2, 4, 4)
    number = np.arange(images, dtype=np.float16)
    latents = {
        "mean": np.broadcast_to(number[:, None, None, None], (images, *shape)),
        "std": np.zeros((images, *shape), np.float16),
        "labels": np.arange(images) % 3,
    }
    arrays = {"tokens": np.broadcast_to(number[:, None, None], (images, 4, 6)), "class_token": np.zeros((images, 6))}
    for kind, named, info in (
        ("latents", latents, {"scale": 0.5, "num_classes": 3, "autoencoder": "none", "identity": "none"}),
        ("features", {name: array.astype(np.float16) for name, array in arrays.items()}, {"encoder": "none"}),
    ):
        write_shard(tmp_path / kind / "0.safetensors", named)
        write_manifest(tmp_path / kind / "train.json", [tmp_path / kind / "0.safetensors"], **info)
    seen = []
    for stop in (7, None):
        job = trainer(tiny_run(lr=1e-5), tmp_path, tmp_path / "run")
        make = job.batches.make

        def watched(read, make=make):
            batch = make(read)
            shaped = batch.t[:, None, None, None]
            image = batch.tokens[:, 0, 0].float()[:, None, None, None]
            expected = (1 - shaped) * 0.5 * image + shaped * read.noise
            torch.testing.assert_close(batch.x_t, expected.expand_as(batch.x_t), atol=1e-4, rtol=0)
            seen.append((read.step, image.flatten().tolist()))
            return batch

        job.batches.make = watched
        assert job.train(lambda job=job, stop=stop: job.step + 1 == stop) is (stop is None)
    assert [step for step, _ in seen] == list(range(24))
    assert len({image for _, batch in seen for image in batch}) > images / 3


@pytest.mark.parametrize("label_drop", [0.3, 1.0])
def test_stf_noises_what_cfm_noises_and_averages_over_the_references_of_its_class(
    data: Path, tmp_path: Path, label_drop: float
) -> None:
    """Against a sum over the rows of each ring in float64, for the images of CFM's own batches."""
    settings = {"training": tiny_run("plain", label_drop=label_drop).training}
    stf = tiny_run().model_copy(update={"objective": "stf", "alignment": None, "class_token": False, **settings})
    plain = trainer(tiny_run("plain", label_drop=label_drop), data, tmp_path / "cfm").batches
    ours = trainer(stf, data, tmp_path / "stf").batches
    bank = ours.bank
    assert bank is not None
    ours.fill_bank()
    moved = 0
    for step in range(3):
        batch, cfm = ours.make(ours.read(step)), plain.make(plain.read(step))
        for name in ("x_t", "t", "labels"):
            assert torch.equal(getattr(batch, name), getattr(cfm, name))
        assert label_drop < 1 or (batch.labels == bank.num_classes).all()
        samples = (batch.x_t, batch.t, batch.labels, batch.target, cfm.target)
        for x_t, t, label, target, single in zip(*samples, strict=True):
            if t < 0.3:
                assert torch.equal(target, single)
                continue
            size = bank.null_capacity if label == bank.num_classes else bank.capacity
            rows = bank.state_dict()["rows"][int(label) * bank.capacity :][:size].double().flatten(1)
            noise = (x_t.double().flatten() - (1 - t.double()) * rows) / t.double()  # of each row, were it x_0
            weights = torch.softmax(-noise.square().sum(1) / 2, 0)
            expected = (weights[:, None] * (noise - rows)).sum(0).view_as(target)
            torch.testing.assert_close(target.double(), expected, atol=1e-4, rtol=1e-4)  # float32 against float64
            moved += not torch.allclose(target, single, atol=1e-3)
    assert moved > 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: none here, path not tested")
@pytest.mark.parametrize("name", ["plain", "everything"])
def test_an_ordinary_step_asks_nothing_of_the_device(name: str, data: Path, tmp_path: Path) -> None:
    """But for the one event that `HostCopy` waits for; torch raises at every other wait."""
    job = trainer(tiny_run(name, steps=8, log_every=100, checkpoint_every=100, precision="bf16"), data, tmp_path)
    make, add = job.batches.make, job.record.add

    def from_here_on(read):
        torch.cuda.set_sync_debug_mode("error" if read.step in (3, 4, 5, 6) else "default")
        return make(read)

    def until_here(batch, values):
        add(batch, values)
        torch.cuda.set_sync_debug_mode("default")

    job.batches.make, job.record.add = from_here_on, until_here
    try:
        job.train()
    finally:
        torch.cuda.set_sync_debug_mode("default")


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
