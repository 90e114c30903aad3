"""Published files become safetensors without their code being run, and give the velocities they gave before."""

import argparse
import functools
import math
import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.models.encoders import load_encoder
from stablevelocity.models.networks import load_network
from stablevelocity.models.sit import SiT, build_sit
from stablevelocity.training.import_weights import convert_checkpoint, convert_encoder, reverse_time

# A few examples, the same ones each time; FUZZ=10000 is a longer hunt with others.
FUZZ = int(os.environ.get("FUZZ", "0"))


def random_state(model: torch.nn.Module, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(value.shape, generator=generator) * (0.5 / math.sqrt(value.shape[-1]))
        for name, value in model.state_dict().items()
    }


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    with torch.device("meta"):
        model = build_sit("SiT-S/4", input_size=8, projector_dims=(768,))
    return random_state(model)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([0.2, 0.9]), torch.tensor([1, 1000])


def velocity(state: dict[str, Tensor], **arguments: Tensor) -> Tensor:
    model = build_sit("SiT-S/4", input_size=8, projector_dims=(768,))
    model.load_state_dict(state)
    with torch.no_grad():
        return model.eval().velocity(*inputs())


def test_a_training_checkpoint_gives_its_ema_weights_and_the_options_are_left_behind(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    wrapped = {f"module.{name}": value for name, value in state.items()}
    raw = {name: value + 1 for name, value in wrapped.items()}
    content = {"ema": wrapped, "model": raw, "opt": {"state": {}}, "args": argparse.Namespace(lr=1), "steps": 400}
    torch.save(content, tmp_path / "0400.pt")
    run = convert_checkpoint(tmp_path / "0400.pt", tmp_path / "repa.safetensors")
    network, info = load_network(tmp_path / "repa.safetensors")
    assert run.training.model.name == "SiT-S/4"
    assert (info["kind"], info["step"], info["num_classes"], info["shape"]) == ("ema", 400, 1000, [4, 8, 8])
    with torch.no_grad():
        assert torch.equal(network.velocity(*inputs()), velocity(state))
    convert_checkpoint(tmp_path / "0400.pt", tmp_path / "raw.safetensors", kind="raw")
    network, info = load_network(tmp_path / "raw.safetensors")
    assert info["kind"] == "raw"
    assert torch.equal(network.pos_embed, state["pos_embed"] + 1)


def test_bare_weights_are_taken_only_when_their_kind_is_said(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "plain.pt")
    with pytest.raises(UserError, match="--kind ema"):
        convert_checkpoint(tmp_path / "plain.pt", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
    convert_checkpoint(tmp_path / "plain.pt", tmp_path / "out.safetensors", kind="ema")
    with torch.no_grad():
        assert torch.equal(load_network(tmp_path / "out.safetensors")[0].velocity(*inputs()), velocity(state))


def test_files_of_sit_are_turned_to_our_time_and_lose_their_variance_channels(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    """SiT: t = 0 is noise and v points to the data, so ours is -v(x, 1 - t); 8 output channels, 4 in use."""
    theirs = {name: value for name, value in state.items() if not name.startswith("projectors")}
    weight, bias = theirs["final_layer.linear.weight"], theirs["final_layer.linear.bias"]
    doubled = torch.full((16, 8, 384), 7.0)
    doubled[:, :4] = weight.reshape(16, 4, 384)
    doubled_bias = torch.full((16, 8), 7.0)
    doubled_bias[:, :4] = bias.reshape(16, 4)
    published = theirs | {
        "final_layer.linear.weight": doubled.reshape(128, 384),
        "final_layer.linear.bias": doubled_bias.reshape(128),
    }
    torch.save(published, tmp_path / "SiT.pt")
    convert_checkpoint(tmp_path / "SiT.pt", tmp_path / "out.safetensors", kind="ema", reversed_time=True)
    network, _ = load_network(tmp_path / "out.safetensors")
    original = build_sit("SiT-S/4", input_size=8)
    original.load_state_dict(theirs)
    x, t, y = inputs()
    with torch.no_grad():
        expected = -original.eval().velocity(x, 1 - t, y)
        # Rotated columns differ by float32 rounding of the weights, amplified through 12 blocks.
        torch.testing.assert_close(network.velocity(x, t, y), expected, atol=2e-5 * expected.abs().max().item(), rtol=0)


def test_reversing_time_twice_changes_nothing() -> None:
    model = SiT(input_size=8, depth=1, width=32, heads=2, patch_size=2, num_classes=3)
    state = random_state(model)
    again = reverse_time(reverse_time(state))
    assert all(torch.allclose(again[name], state[name], atol=1e-6) for name in state)


class Code:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_file_with_code_inside_is_refused_and_the_code_is_not_run(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({"ema": state, "extra": Code(tmp_path / "owned")}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match="not opened"):
        convert_checkpoint(tmp_path / "bad.pt", tmp_path / "out.safetensors")
    assert not (tmp_path / "owned").exists()


def test_files_that_are_something_else_are_user_errors(tmp_path: Path, state: dict[str, Tensor]) -> None:
    output = tmp_path / "out.safetensors"
    with pytest.raises(UserError, match="no such file"):
        convert_checkpoint(tmp_path / "absent.pt", output)
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UserError, match=r"text\.pt"):
        convert_checkpoint(tmp_path / "text.pt", output)
    torch.save({"weights": 1}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="no entry 'ema'; there are weights"):
        convert_checkpoint(tmp_path / "other.pt", output)
    partial = {name: value for name, value in state.items() if name != "blocks.5.mlp.fc1.bias"}
    torch.save(partial, tmp_path / "partial.pt")
    with pytest.raises(UserError, match=r"blocks\.5\.mlp\.fc1\.bias"):
        convert_checkpoint(tmp_path / "partial.pt", output, kind="ema")
    shallow = {name: value for name, value in state.items() if not name.startswith("blocks.11.")}
    torch.save(shallow, tmp_path / "shallow.pt")
    with pytest.raises(UserError, match="depth 11"):
        convert_checkpoint(tmp_path / "shallow.pt", output, kind="ema")
    assert not output.exists()


def test_an_encoder_inside_a_training_checkpoint_is_taken_out_by_part_and_prefix(tmp_path: Path) -> None:
    """As in MoCo-v3: the momentum encoder beside the other one, with a projection head of its own."""
    import timm

    with torch.device("meta"):
        model = timm.create_model("vit_small_patch16_224.dino", num_classes=0)
    weights = random_state(model)
    content = {f"module.momentum_encoder.{name}": value for name, value in weights.items()}
    content |= {"module.momentum_encoder.head.0.weight": torch.ones(2), "module.base_encoder.norm.bias": torch.ones(2)}
    torch.save({"state_dict": content, "epoch": 300}, tmp_path / "moco.pth.tar")
    file = tmp_path / "moco.safetensors"
    convert_encoder(tmp_path / "moco.pth.tar", file, part="state_dict", prefix="module.momentum_encoder.")
    encoder = load_encoder("dinov1-small", file, grid=14)
    assert torch.equal(encoder.model.norm.bias, weights["norm.bias"])
    with pytest.raises(UserError, match="there are state_dict, epoch"):
        convert_encoder(tmp_path / "moco.pth.tar", file, part="teacher")
    with pytest.raises(UserError, match=r"no tensor named backbone\.\*"):
        convert_encoder(tmp_path / "moco.pth.tar", file, part="state_dict", prefix="backbone.")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.", "module._orig_mod.", "_orig_mod.module._orig_mod."])
def test_wrappers_come_off_in_any_order_and_number(tmp_path: Path, state: dict[str, Tensor], prefix: str) -> None:
    bare = {prefix + name: value for name, value in state.items()}
    torch.save(bare, tmp_path / "bare.pt")
    convert_checkpoint(tmp_path / "bare.pt", tmp_path / "out.safetensors", kind="ema")
    assert torch.equal(load_network(tmp_path / "out.safetensors")[0].pos_embed, state["pos_embed"])
    torch.save({"ema": bare}, tmp_path / "inside.pt")
    convert_checkpoint(tmp_path / "inside.pt", tmp_path / "out.safetensors")
    assert torch.equal(load_network(tmp_path / "out.safetensors")[0].pos_embed, state["pos_embed"])
    blocks = {name.replace("blocks.3.", "blocks.3._orig_mod."): value for name, value in state.items()}
    torch.save(blocks, tmp_path / "block.pt")  # a block that was compiled by itself
    convert_checkpoint(tmp_path / "block.pt", tmp_path / "out.safetensors", kind="ema")


@pytest.mark.parametrize("name", ["projectors.0.conv", "projectors.0"])  # the published layout and this project's own
def test_an_irepa_checkpoint_keeps_its_convolution(tmp_path: Path, state: dict[str, Tensor], name: str) -> None:
    weight, bias = torch.randn(768, 384, 3, 3), torch.randn(768)
    plain = {key: value for key, value in state.items() if not key.startswith("projectors")}
    torch.save(plain | {f"{name}.weight": weight, f"{name}.bias": bias}, tmp_path / "irepa.pt")
    run = convert_checkpoint(tmp_path / "irepa.pt", tmp_path / "out.safetensors", kind="ema")
    network, info = load_network(tmp_path / "out.safetensors")
    assert run.alignment is not None
    assert (run.alignment.projector, info["feature_width"]) == ("conv", 768)
    assert torch.equal(network.projectors[0].weight, weight)
    assert torch.equal(network.projectors[0].bias, bias)
    with torch.no_grad():
        assert torch.equal(network.velocity(*inputs()), velocity(state))  # the projector takes no part in it


def test_a_table_of_1000_labels_is_asked_about(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """1,000 classes without label dropout, or 999 and the null class: only the user can tell."""
    table = "y_embedder.embedding_table.weight"
    torch.save(state | {table: state[table][:1000].clone()}, tmp_path / "x.pt")
    output = tmp_path / "out.safetensors"
    with pytest.raises(UserError, match=r"1,000 rows; give --classes 1000 if .* or --classes 999 if"):
        convert_checkpoint(tmp_path / "x.pt", output, kind="ema")
    convert_checkpoint(tmp_path / "x.pt", output, kind="ema", classes=1000)
    network, info = load_network(output)
    assert (info["num_classes"], info["null_class"]) == (1000, False)
    assert torch.equal(network.y_embedder.embedding_table.weight[:1000], state[table][:1000])
    x, t, _ = inputs()
    labels = torch.tensor([1, 999])  # class 999 is a class
    model = build_sit("SiT-S/4", input_size=8, projector_dims=(768,))
    model.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(network.velocity(x, t, labels), model.eval().velocity(x, t, labels))
    convert_checkpoint(tmp_path / "x.pt", output, kind="ema", classes=999)
    _, info = load_network(output)
    assert (info["num_classes"], info["null_class"]) == (999, True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_weights_of_another_precision_are_read_as_they_are(tmp_path: Path, state: dict[str, Tensor], dtype) -> None:
    torch.save({"ema": {name: value.to(dtype) for name, value in state.items()}}, tmp_path / "x.pt")
    convert_checkpoint(tmp_path / "x.pt", tmp_path / "out.safetensors")
    network, _ = load_network(tmp_path / "out.safetensors")
    assert torch.equal(network.pos_embed, state["pos_embed"].to(dtype).float())


@functools.cache
def names_of_a_network() -> list[str]:
    with torch.device("meta"):
        return list(build_sit("SiT-S/4", input_size=8).state_dict())


NAMES = st.sampled_from(names_of_a_network()) | st.text(max_size=20) | st.integers()
SHAPES = st.lists(st.integers(0, 3), max_size=5)
TENSORS = st.builds(
    torch.zeros, SHAPES, dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool])
)
STATES = st.dictionaries(NAMES, TENSORS | st.none() | st.integers() | st.text(max_size=9), max_size=6)


@settings(max_examples=FUZZ or 25, derandomize=not FUZZ, deadline=None, database=None)
@example(change={"\x1b": torch.zeros(())}, whole=True, inside=None)  # a find of `make fuzz`
@given(change=STATES, whole=st.booleans(), inside=st.sampled_from([None, "ema", "model", "state_dict"]))
def test_any_state_is_converted_or_refused_in_one_line(change: dict, whole: bool, inside: str | None) -> None:
    """A whole network with some entries changed, or those entries alone; bare or inside an entry."""
    with torch.device("meta"):
        shapes = build_sit("SiT-S/4", input_size=8).state_dict()
    state = {name: torch.zeros(()).expand(value.shape) for name, value in shapes.items()} if whole else {}
    state |= change
    with tempfile.TemporaryDirectory() as folder:
        file, output = Path(folder) / "x.pt", Path(folder) / "out.safetensors"
        torch.save(state if inside is None else {inside: state}, file)
        line = None
        try:
            convert_checkpoint(file, output, kind="ema")
            load_network(output)
        except UserError as error:
            line = str(error)
        assert line is None or (line.isprintable() and len(line) < 500 and not output.exists())
