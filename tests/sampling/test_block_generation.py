"""Blocks of images: the same however they are assigned, resumed or sharded; settings mean what they say."""

import itertools
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from stablevelocity.data.shards import ShardSet, read_shard, write_manifest
from stablevelocity.errors import UserError
from stablevelocity.evaluation.image_sets import open_images
from stablevelocity.interpolants import LinearPath
from stablevelocity.models.sit import SiT
from stablevelocity.models.small_autoencoder import SmallAutoencoder
from stablevelocity.sampling import euler, generate, heun, thin_times, uniform_times
from stablevelocity.sampling.export import write_npz, write_png_folder
from stablevelocity.sampling.generate import BlockSampler, generate_shard, shard_blocks, write_blocks
from stablevelocity.sampling.run_sampler import network_calls, sampler_times, solve
from stablevelocity.study.settings import Sampler

STOCHASTIC = Sampler(solver="euler_maruyama", steps=4, guidance=2.0, guidance_interval=(0.0, 0.7))


def block_sampler(sampler: Sampler = STOCHASTIC, *, class_dim: int | None = None, **settings) -> BlockSampler:
    torch.manual_seed(0)
    model = SiT(input_size=4, depth=1, width=16, heads=2, patch_size=2, num_classes=5, class_dim=class_dim)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    autoencoder = SmallAutoencoder(widths=[8, 8], channels=4, side=8)
    return BlockSampler(model.eval(), autoencoder.eval(), 0.5, sampler, block=8, **settings)


def images_of(folder: Path, shards: int) -> tuple[np.ndarray, np.ndarray]:
    files = [folder / f"shard-{number}.safetensors" for number in range(shards)]
    arrays = [read_shard(file) for file in files]
    return tuple(np.concatenate([array[name] for array in arrays]) for name in ("images", "labels"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> tuple[np.ndarray, np.ndarray]:
    """60 images in one go: eight blocks of 8, the last one cut."""
    folder = tmp_path_factory.mktemp("expected")
    generate_shard(block_sampler(), folder / "shard-0.safetensors", images=60)
    images, labels = images_of(folder, 1)
    assert images.shape == (60, 8, 8, 3)
    assert len(np.unique(images.reshape(60, -1), axis=0)) == 60  # not one picture over and over
    return images, labels


@pytest.mark.parametrize("processes", [2, 4])
def test_the_same_images_come_from_any_number_of_processes(expected, tmp_path, processes):
    generate_shard(block_sampler(), tmp_path / "shard-0.safetensors", images=60, processes=processes)
    for found, wanted in zip(images_of(tmp_path, 1), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("shards", [2, 3, 8])
def test_the_same_images_come_from_any_number_of_shards(expected, tmp_path, shards):
    for shard in range(shards):
        generate_shard(block_sampler(), tmp_path / f"shard-{shard}.safetensors", images=60, shard=shard, shards=shards)
    for found, wanted in zip(images_of(tmp_path, shards), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_first_images_of_a_larger_set_are_the_smaller_set(expected, tmp_path):
    generate_shard(block_sampler(), tmp_path / "shard-0.safetensors", images=13)
    np.testing.assert_array_equal(images_of(tmp_path, 1)[0], expected[0][:13])


def test_a_shard_made_twice_has_the_same_bytes(tmp_path):
    files = [tmp_path / f"shard-{number}.safetensors" for number in range(4)]
    for file in files:
        generate_shard(block_sampler(), file, images=8)
    assert len({file.read_bytes() for file in files}) == 1


def _slow_job(output: Path) -> None:
    sampler = block_sampler()
    decode = sampler.autoencoder.decode

    def slowly(latents):
        time.sleep(1)
        return decode(latents)

    sampler.autoencoder.decode = slowly
    generate_shard(sampler, output, images=60)


def test_a_killed_job_goes_on_where_it_stopped(expected, tmp_path):
    output = tmp_path / "shard-0.safetensors"
    folder = tmp_path / "shard-0.safetensors.blocks"
    job = multiprocessing.get_context("fork").Process(target=_slow_job, args=(output,))
    job.start()
    while len(list(folder.glob("block-*"))) < 3:
        assert job.is_alive()
        time.sleep(0.01)
    job.kill()
    job.join()
    assert not output.exists()
    done = {file: file.stat().st_mtime_ns for file in folder.glob("block-*")}
    assert 3 <= len(done) < 8
    damaged = min(done)
    damaged.write_bytes(damaged.read_bytes()[:20])  # as a failing disk might leave it
    write_blocks(block_sampler(), range(8), folder)
    for file, made in done.items():
        assert (file.stat().st_mtime_ns == made) == (file != damaged)
    generate_shard(block_sampler(), output, images=60)
    np.testing.assert_array_equal(images_of(tmp_path, 1)[0], expected[0])
    assert not folder.exists()


def test_blocks_of_other_settings_weights_or_code_are_made_again(tmp_path, monkeypatch):
    other = block_sampler(STOCHASTIC.model_copy(update={"diffusion": "2t"}))
    names = {block_sampler().identity("a"), block_sampler().identity("b"), other.identity("a")}
    names |= {block_sampler(seed=1).identity("a"), block_sampler(precision="bf16").identity("a")}
    assert len(names) == 5
    write_blocks(block_sampler(), range(1), tmp_path, weights="a")
    file = tmp_path / "block-000000.safetensors"
    before = read_shard(file)["images"].copy()
    write_blocks(other, range(1), tmp_path, weights="a")
    assert (read_shard(file)["images"] != before).any()
    made = file.stat().st_mtime_ns
    write_blocks(other, range(1), tmp_path, weights="a")
    assert file.stat().st_mtime_ns == made
    monkeypatch.setattr(generate, "code_hash", lambda module: "other code")
    write_blocks(other, range(1), tmp_path, weights="a")
    assert file.stat().st_mtime_ns != made


def test_too_many_shards_are_refused():
    with pytest.raises(UserError, match="9 shards for 60 images in blocks of 8: expected at most 8"):
        shard_blocks(60, 8, 0, 9)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_latent_that_is_not_finite_ends_in_one_line(tmp_path, processes):
    sampler = block_sampler()
    with torch.no_grad():
        sampler.model.final_layer.linear.bias[0] = torch.nan
    with pytest.raises(UserError, match=r"^sampling: 8 of 8 latents of block . are NaN or infinite \(precision fp32"):
        generate_shard(sampler, tmp_path / "s.safetensors", images=16, processes=processes)


def test_balanced_labels_give_every_class_its_share_and_random_ones_are_seeded():
    balanced = block_sampler(STOCHASTIC.model_copy(update={"labels": "balanced"}))
    labels = torch.cat([balanced.labels(block) for block in range(5)])
    assert labels.bincount().tolist() == [8] * 5
    sampler, other = block_sampler(), block_sampler(seed=1)
    draws = torch.cat([sampler.labels(block) for block in range(200)])
    # 1600 draws of 5 classes: 320 each with deviation 16; four deviations.
    assert (draws.bincount() - 320).abs().max() < 64
    assert torch.equal(sampler.labels(3), sampler.labels(3))
    assert not torch.equal(sampler.labels(3), sampler.labels(4))
    assert not torch.equal(sampler.labels(3), other.labels(3))


def test_network_calls_count_every_solver():
    def calls(**settings) -> int:
        return network_calls(Sampler(steps=20, **settings))

    assert calls(solver="euler") == 20
    assert calls(solver="heun") == 2 * 20 - 1
    assert calls(solver="euler_maruyama") == 20
    # xi = 0.85: times 1, .95, .9, .85 stay, so four steps start above; nine follow.
    for low_regime in ("stablevs", "control"):
        assert calls(solver="euler", low_regime=low_regime) == 13
    assert calls(solver="heun", low_regime="stablevs") == 2 * 4 + 9
    assert calls(solver="heun", low_regime="control") == 2 * 13 - 1


def test_every_sampler_is_the_solver_it_names():
    def velocity(x, t):
        return torch.sin(3 * x) + t

    noise = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    path, grid = LinearPath(), uniform_times(20)

    def run(**settings) -> torch.Tensor:
        return solve(velocity, noise, Sampler(steps=20, **settings), path=path, draws=torch.Generator().manual_seed(1))

    assert torch.equal(run(solver="euler"), euler(velocity, noise, grid))
    assert torch.equal(run(solver="heun"), heun(velocity, noise, grid))
    thinned = thin_times(grid, 0.7, 3)
    assert torch.equal(sampler_times(Sampler(steps=20, low_regime="control", xi=0.7, low_steps=3)), thinned)
    control = run(solver="heun", low_regime="control", xi=0.7, low_steps=3)
    assert torch.equal(control, heun(velocity, noise, thinned))
    # On the linear path the closed form is Euler's step, up to rounding in its weights.
    torch.testing.assert_close(
        run(low_regime="stablevs", xi=0.7, low_steps=3), euler(velocity, noise, thinned), rtol=1e-6, atol=1e-6
    )
    results = [
        run(solver="euler_maruyama"),
        run(solver="euler_maruyama", diffusion="2t"),
        run(solver="euler_maruyama", last_time=0.1),
        run(solver="euler_maruyama", low_regime="control"),
        run(low_regime="stablevs", noise_factor=0.5),
        run(low_regime="stablevs"),
        run(),
    ]
    for a, b in itertools.combinations(results, 2):
        assert not torch.allclose(a, b, atol=1e-3)


def test_guidance_doubles_the_rows_inside_its_interval_only(monkeypatch):
    sampler = block_sampler(Sampler(steps=10, guidance=1.8, guidance_interval=(0.0, 0.7)))
    rows = []
    original = sampler.model.velocity
    monkeypatch.setattr(
        sampler.model, "velocity", lambda x, t, y: (rows.append((float(t[0]), len(x))), original(x, t, y))[1]
    )
    sampler.latents(0)
    assert [count for _, count in rows] == [8] * 3 + [16] * 7  # t = 1, .9, .8, then .7 to .1
    assert rows[3][0] == pytest.approx(0.7)


def test_a_model_with_a_class_token_samples_both_together():
    sampler = block_sampler(class_dim=6)
    latents, _ = sampler.latents(0)
    assert latents.shape == (8, 4, 4, 4)
    with torch.no_grad():
        sampler.model.final_layer.linear_class.bias += 1  # moves the token, and by it the latents
    assert (sampler.latents(0)[0] - latents).abs().max() > 1e-4


def test_bfloat16_networks_keep_a_float64_state():
    exact, _ = block_sampler(Sampler(steps=4)).latents(0)
    rounded, _ = block_sampler(Sampler(steps=4), precision="bf16").latents(0)
    assert exact.dtype == rounded.dtype == torch.float64
    error = (rounded - exact).abs().max() / exact.abs().max()
    assert 0 < error < 0.05  # bfloat16 rounds to 2^-9; a few layers and four steps


def test_exports_hold_the_same_images(tmp_path):
    generate_shard(block_sampler(), tmp_path / "shard-0.safetensors", images=10)
    write_manifest(tmp_path / "manifest.json", [tmp_path / "shard-0.safetensors"])
    shards = ShardSet(tmp_path / "manifest.json")
    write_npz(shards, tmp_path / "batch.npz")
    write_png_folder(shards, tmp_path / "png")
    images = shards.all("images")
    np.testing.assert_array_equal(np.load(tmp_path / "batch.npz")["arr_0"], images)
    for path in (tmp_path / "batch.npz", tmp_path / "png", tmp_path):
        np.testing.assert_array_equal(np.concatenate(list(open_images(path).batches(4))), images)
    with pytest.raises(UserError, match=r"png: the folder is not empty"):
        write_png_folder(shards, tmp_path / "png")
