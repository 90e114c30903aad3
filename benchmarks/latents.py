"""How fast images become latents, and what bounds it.

python -m benchmarks.latents                     images and autoencoder of the digits study's size
python -m benchmarks.latents --size 256 --images 5000
                                                 ImageNet-shaped: SD-VAE's architecture, random weights

The job itself (`data/encode.py`) is timed, shard to shard, and beside it the same work one thing after the other.
"""

# diffusers annotates its inputs as tensors of the CPU.
# pyright: reportArgumentType=false

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from stablevelocity.data.encoding import encode_shard
from stablevelocity.data.shards import read_shard, write_shard
from stablevelocity.models.autoencoders import encode_images


def autoencoder(size: int) -> AutoencoderKL:
    """Of the digits study at 16, of SD (f8d4) at 256; random weights."""
    widths = (16, 32) if size <= 32 else (128, 256, 512, 512)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1 if size <= 32 else 2,
        latent_channels=4,
        norm_num_groups=16 if size <= 32 else 32,
        mid_block_add_attention=size > 32,
    )
    return model.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")


def measure(size: int, images: int, rounds: int) -> dict[str, float]:
    """Images a second, overlapped and one after the other: medians of rounds made by turns."""
    torch.set_num_threads(1)
    model = autoencoder(size)
    rng = np.random.default_rng(0)
    shape = encode_images(model, np.zeros((1, size, size, 3), np.uint8))[0].shape[1:]

    def encode(pixels: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(("mean", "std"), encode_images(model, pixels), strict=True))

    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "images.safetensors", Path(folder) / "latents.safetensors"
        write_shard(source, {"images": rng.integers(0, 256, (images, size, size, 3), dtype=np.uint8)})
        seconds: dict[str, list[float]] = {"overlapped": [], "one after the other": []}
        for _ in range(rounds):
            began = time.perf_counter()
            encode_shard("latents", read_shard(source)["images"], encode, {"mean": shape, "std": shape}, output)
            seconds["overlapped"].append(time.perf_counter() - began)
            began = time.perf_counter()
            arrays = encode(np.array(read_shard(source)["images"]))
            write_shard(output, {name: array.astype(np.float16) for name, array in arrays.items()})
            seconds["one after the other"].append(time.perf_counter() - began)
    return {how: images / statistics.median(times) for how, times in seconds.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Images per second of the latents stage, and what bounds it.")
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    logging.basicConfig(format="%(message)s", level="INFO")
    for how, rate in measure(given.size, given.images, given.rounds).items():
        print(f"{how}: {rate:.4g} images/s")
