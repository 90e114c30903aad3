"""The small autoencoder is diffusers' AutoencoderKL to the last bit; training it standardises the latents."""

import math

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from stablevelocity.errors import UserError
from stablevelocity.files import read_json, write_json
from stablevelocity.models.autoencoders import (
    autoencoder_identity,
    decode_latents,
    encode_images,
    load_autoencoder,
    reconstruction_psnr,
    train_autoencoder,
)
from stablevelocity.models.pixels import to_uint8, to_unit_range
from stablevelocity.models.small_autoencoder import SmallAutoencoder


def stock(widths: list[int], channels: int = 4, side: int = 16) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=tuple(widths),
        latent_channels=channels,
        norm_num_groups=math.gcd(8, *widths),
        sample_size=side,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def pictures(count: int, side: int = 16) -> np.ndarray:
    """Coloured ramps: what a small network can learn."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, side)[None, :, None, None] * rng.uniform(0, 255, (count, 1, 1, 3))
    return np.broadcast_to(ramp, (count, side, side, 3)).astype(np.uint8).copy()


@pytest.mark.parametrize("widths", [[8], [16, 32], [8, 16, 24]])
@pytest.mark.parametrize("batch", [3, 64])  # diffusers changes the layout of large batches
@pytest.mark.parametrize("training", [True, False])
def test_one_seed_gives_diffusers_weights_results_and_gradients_bit_for_bit(widths, batch, training):
    torch.manual_seed(0)
    theirs = stock(widths).train(training)
    torch.manual_seed(0)
    ours = SmallAutoencoder(widths=widths, channels=4, side=16).train(training)
    # The order too: the norm of the gradient is summed in it.
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    x = to_unit_range(torch.from_numpy(pictures(batch)))
    results = []
    for model in (theirs, ours):
        posterior = model.encode(x).latent_dist
        image = model.decode(posterior.mean + posterior.std).sample
        ((image - x).square().mean() + posterior.logvar.mean() + posterior.var.mean()).backward()
        results.append([posterior.mean, posterior.std, image, *(weight.grad for weight in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_diffusers_loads_what_is_saved_and_the_other_way_round(tmp_path):
    torch.manual_seed(1)
    ours = SmallAutoencoder(widths=[8, 16], channels=2, side=16)
    ours.save_pretrained(tmp_path / "ours")
    theirs = AutoencoderKL.from_pretrained(tmp_path / "ours")
    assert {name: value.tolist() for name, value in theirs.state_dict().items()} == {
        name: value.tolist() for name, value in ours.state_dict().items()
    }
    assert theirs.config["scaling_factor"] == 1
    theirs.save_pretrained(tmp_path / "theirs")
    back = load_autoencoder(tmp_path / "theirs")
    assert isinstance(back, SmallAutoencoder)
    # The file is the same to the byte, so the identity in manifests does not depend on who wrote it.
    assert autoencoder_identity(tmp_path / "ours", None) == autoencoder_identity(tmp_path / "theirs", None)
    assert not back.training
    assert not any(weight.requires_grad for weight in back.parameters())


@pytest.mark.parametrize(
    "change", [{"mid_block_add_attention": True}, {"layers_per_block": 2}, {"scaling_factor": 0.5}, {"act_fn": "relu"}]
)
def test_any_other_architecture_is_left_to_diffusers(tmp_path, change):
    config = {"block_out_channels": (8,), "norm_num_groups": 8, "mid_block_add_attention": False, "scaling_factor": 1.0}
    AutoencoderKL(**config | change).save_pretrained(tmp_path)
    model = load_autoencoder(tmp_path)
    assert isinstance(model, AutoencoderKL)
    assert all(model.config[key] == value for key, value in change.items())


def test_a_missing_autoencoder_is_one_line(tmp_path):
    with pytest.raises(UserError, match="not on this machine; fetch it with"):
        load_autoencoder(tmp_path / "none")


def test_training_learns_the_images_and_standardises_their_latents():
    images = pictures(64)
    options = {"widths": [8, 16], "channels": 4, "batch": 16, "lr": 5e-3, "kl_weight": 1e-6, "seed": 0}
    short, long = (train_autoencoder(images, steps=steps, **options) for steps in (1, 60))
    assert reconstruction_psnr(long, images) > reconstruction_psnr(short, images) + 3
    mean, std = (part.astype(np.float64) for part in encode_images(long, images))
    np.testing.assert_allclose(mean.mean((0, 2, 3)), 0, atol=1e-4)
    # Of samples: the spread of the means plus that of the posterior. float32 weights.
    np.testing.assert_allclose((mean**2 + std**2).mean((0, 2, 3)), 1, rtol=1e-3)


def test_decoding_divides_by_the_scale_and_psnr_is_over_all_pixels():
    images = pictures(8)
    model = train_autoencoder(images, steps=2, widths=[8], channels=2, batch=8, lr=5e-3, kl_weight=1e-6, seed=0)
    latents = torch.from_numpy(encode_images(model, images)[0])
    decoded = decode_latents(model, latents, 1.0).numpy()
    # A power of two: nothing is rounded.
    assert np.array_equal(decode_latents(model, 4 * latents, 4.0).numpy(), decoded)
    error = ((decoded.astype(float) - images) ** 2).mean()
    assert reconstruction_psnr(model, images) == pytest.approx(10 * np.log10(255**2 / error))


def test_pixels_survive_the_way_to_the_unit_range_and_back():
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    assert torch.equal(to_uint8(to_unit_range(values)), values)
    assert to_uint8(torch.tensor([-3.0, 3.0, 0.0]).reshape(1, 3, 1, 1)).flatten().tolist() == [0, 255, 128]


def test_the_shift_of_published_latents_is_taken_off_and_put_back(tmp_path):
    """As SD3's: latents are (z - shift) * scale, and are decoded from latent / scale + shift."""
    torch.manual_seed(0)
    model = stock([8, 16])
    model.register_to_config(shift_factor=0.25)
    model.save_pretrained(tmp_path)
    images, loaded = pictures(3), load_autoencoder(tmp_path)
    posterior = model.encode(to_unit_range(torch.from_numpy(images))).latent_dist
    mean, std = encode_images(loaded, images)
    np.testing.assert_allclose(mean, posterior.mean.detach() - 0.25, atol=1e-6)
    np.testing.assert_allclose(std, posterior.std.detach(), atol=1e-6)
    expected = to_uint8(model.decode(posterior.mean).sample.detach())
    found = decode_latents(loaded, torch.from_numpy(mean) * 1.5, 1.5)
    assert (found.int() - expected.int()).abs().max() <= 1  # float32 rounding before the rounding to a level


def test_weights_that_lack_tensors_are_not_filled_up_with_random_ones(tmp_path):
    stock([8, 16]).save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", config | {"layers_per_block": 2})
    with pytest.raises(UserError, match=r"its weights lack \d+ tensors") as caught:
        load_autoencoder(tmp_path)
    assert "\n" not in str(caught.value)
