"""A set of images is identified by what it was made with, not by where that lay."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from stablevelocity.errors import UserError
from stablevelocity.files import write_json
from stablevelocity.models.networks import build_network
from stablevelocity.models.weight_files import load_tensors, save_tensors
from stablevelocity.sampling.stages import open_sampler
from stablevelocity.study import parse_study
from stablevelocity.study.settings import Sampler, Sampling


def save_decoder(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, mid_block_add_attention=False).save_pretrained(folder)


def save_weights(path: Path, seed: int = 0) -> None:
    model = {"depth": 1, "width": 16, "heads": 2, "patch": 2, "encoder_depth": 1}
    sampling = {"main": "ode", "samplers": {"ode": {}}}
    study = parse_study(
        {
            "name": "t",
            "training": {"model": model, "seeds": [seed]},
            "arms": {"cfm": {"label": "CFM"}},
            "sampling": sampling,
        }
    )
    run = next(iter(study.runs().values()))
    shape = (4, 4, 4)
    info = {
        "kind": "ema",
        "run": run.model_dump(mode="json"),
        "latents": {"identity": "a", "scale": 1.0},
        "shape": shape,
        "num_classes": 3,
        "feature_width": None,
    }
    save_tensors(path, build_network(run, shape, 3, None).state_dict(), info)


def test_a_decoder_trained_anew_in_the_same_folder_is_another(tmp_path):
    save_weights(tmp_path / "w.safetensors")
    description = {"identity": "a", "scale": 1.0, "decoder": str(tmp_path / "decoder"), "decoder_revision": None}
    write_json(tmp_path / "autoencoder.json", description)

    def identity(seed: int) -> str:
        save_decoder(tmp_path / "decoder", seed)
        return open_sampler(tmp_path / "w.safetensors", tmp_path / "autoencoder.json", Sampler(), Sampling())[1]

    first = identity(0)
    assert identity(1) != first
    assert identity(0) == first


def test_samples_by_run_take_the_runs_own_seed(tmp_path):
    description = {"identity": "a", "scale": 1.0, "decoder": str(tmp_path / "decoder"), "decoder_revision": None}
    write_json(tmp_path / "autoencoder.json", description)
    save_decoder(tmp_path / "decoder", 0)

    def seed_of(run: int, sampling: Sampling) -> int:
        save_weights(tmp_path / "w.safetensors", run)
        return open_sampler(tmp_path / "w.safetensors", tmp_path / "autoencoder.json", Sampler(), sampling)[0].seed

    assert [seed_of(run, Sampling(seed="by_run")) for run in (0, 3)] == [0, 3]
    assert [seed_of(run, Sampling(seed=5)) for run in (0, 3)] == [5, 5]


def test_weights_without_a_null_class_are_refused_under_guidance(tmp_path):
    save_weights(tmp_path / "w.safetensors")
    tensors, info = load_tensors(tmp_path / "w.safetensors")
    save_tensors(tmp_path / "w.safetensors", tensors, info | {"null_class": False})
    save_decoder(tmp_path / "decoder", 0)
    description = {"identity": "a", "scale": 1.0, "decoder": str(tmp_path / "decoder"), "decoder_revision": None}
    write_json(tmp_path / "autoencoder.json", description)
    given = tmp_path / "w.safetensors", tmp_path / "autoencoder.json"
    open_sampler(*given, Sampler(), Sampling())
    with pytest.raises(UserError, match="trained without label dropout, so it cannot be sampled with guidance"):
        open_sampler(*given, Sampler(guidance=1.5), Sampling())
