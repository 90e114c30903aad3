"""The tiny models are trained in the very space in which the pipelines sample."""

import numpy as np
import pytest
import torch

from stablevelocity.pretrained.families import FAMILIES
from stablevelocity.pretrained.generate import prepare, sample
from stablevelocity.pretrained.tiny import TINY_FAMILIES
from stablevelocity.pretrained.tiny_training import (
    decode_unclamped,
    shifted,
    standardise,
    train_tiny,
    training_scenes,
)
from stablevelocity.study.pretrained_settings import TinyTraining


@pytest.mark.parametrize("name", list(TINY_FAMILIES))
def test_a_perfect_velocity_brings_the_pipeline_to_the_very_picture(name, folders):
    # v = (x - z)/t leads any noise to z. The picture must be the autoencoder's own reconstruction: packing, scaling,
    # sign and time all agree between training and pipeline, or this fails.
    family, tiny = FAMILIES[name], TINY_FAMILIES[name]
    pipeline = prepare(family.load(folders[name], torch.float32), "cpu", "none")
    pictures, captions = training_scenes(tiny, 2, seed=5)
    with torch.no_grad():
        latents = tiny.encode(pipeline.vae, pictures)
        expected = tiny.decode(pipeline.vae, latents)
        target = tiny.pack(standardise(pipeline.vae, latents))
    unit = 1.0 if name in ("flux", "qwen-image") else 1000.0

    def velocity(hidden_states, timestep, **_):
        # Guided pipelines may ask for both halves at once.
        z = target.repeat(len(hidden_states) // len(target), *[1] * (target.ndim - 1))
        t = (timestep / unit).reshape(-1, *[1] * (z.ndim - 1))
        return ((hidden_states - z) / t,)

    pipeline.transformer.forward = velocity
    made, _ = sample(family, pipeline, captions, [1, 2], 6, 0.85)
    expected = ((expected.clamp(-1, 1) + 1) * 127.5).round().numpy().astype(int)
    expected = np.moveaxis(expected, 1, -1)
    # The pipelines round on their own; UniPC's timesteps are whole thousandths.
    assert np.abs(made.astype(int) - expected).max() <= 4


@pytest.mark.parametrize("name", list(TINY_FAMILIES))
def test_training_writes_a_pipeline_that_loads_and_has_standard_latents(name, tmp_path):
    tiny = TINY_FAMILIES[name]
    budget = TinyTraining(scenes=24, autoencoder_steps=2, autoencoder_batch=4, steps=2, batch=4)
    report = train_tiny(tiny, budget, tmp_path)
    assert np.isfinite(report["loss"])
    pipeline = FAMILIES[name].load(tmp_path, torch.float32)
    pictures, _ = training_scenes(tiny, 24, budget.seed)
    with torch.no_grad():
        latents = standardise(pipeline.vae, tiny.encode(pipeline.vae, pictures))
    assert float(latents.mean()) == pytest.approx(0, abs=0.05)
    assert float(latents.square().mean().sqrt()) == pytest.approx(1, abs=0.1)
    assert (tmp_path / "training.json").exists()


def test_training_learns(tmp_path):
    # An untrained network predicts nothing: loss about 2 (noise and latents, both of variance 1).
    tiny = TINY_FAMILIES["sd35"]
    budget = TinyTraining(scenes=64, autoencoder_steps=20, autoencoder_batch=16, steps=40, batch=16)
    assert train_tiny(tiny, budget, tmp_path)["loss"] < 1.6


def test_a_shared_autoencoder_is_taken_as_it_is(tmp_path):
    budget = TinyTraining(scenes=8, autoencoder_steps=1, autoencoder_batch=4, steps=1, batch=4)
    train_tiny(TINY_FAMILIES["sd35"], budget, tmp_path / "a")
    trained = FAMILIES["sd35"].load(tmp_path / "a", torch.float32).vae
    before = {name: weight.clone() for name, weight in trained.state_dict().items()}
    train_tiny(TINY_FAMILIES["flux"], budget, tmp_path / "b", trained)
    after = FAMILIES["flux"].load(tmp_path / "b", torch.float32).vae.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def test_shifted_times_are_the_samplers():
    t = torch.linspace(0, 1, 5)
    torch.testing.assert_close(shifted(t, 3.0), 3 * t / (1 + 2 * t))
    assert torch.equal(shifted(t, 1.0), t)


def test_wans_autoencoder_starts_as_qwen_images_frame_by_frame():
    torch.manual_seed(0)
    trained = TINY_FAMILIES["qwen-image"].autoencoder()
    autoencoder = TINY_FAMILIES["wan22"].autoencoder_from(trained)
    pictures, _ = training_scenes(TINY_FAMILIES["wan22"], 1, seed=0)
    with torch.no_grad():
        latents = TINY_FAMILIES["wan22"].encode(autoencoder, pictures)
        # Every second latent frame is kept: frames 1, 3 and 5 of the video.
        for number, frame in enumerate((0, 2, 4)):
            alone = TINY_FAMILIES["qwen-image"].encode(trained, pictures[:, :, frame])
            torch.testing.assert_close(latents[:, :, number], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(TINY_FAMILIES))
def test_a_decoder_that_lies_below_black_still_learns(name):
    torch.manual_seed(0)
    tiny = TINY_FAMILIES[name]
    autoencoder = tiny.autoencoder()
    pictures, _ = training_scenes(tiny, 1, seed=0)
    latents = tiny.encode(autoencoder, pictures).detach()
    torch.testing.assert_close(
        decode_unclamped(tiny, autoencoder, latents).clamp(-1, 1),
        tiny.decode(autoencoder, latents).clamp(-1, 1),
    )
    bias = autoencoder.decoder.conv_out.bias
    bias.data.fill_(-10.0)
    decode_unclamped(tiny, autoencoder, latents).mean().backward()
    # Each of three channels moves a third of the mean.
    torch.testing.assert_close(bias.grad, torch.full((3,), 1 / 3), rtol=1e-4, atol=0)
