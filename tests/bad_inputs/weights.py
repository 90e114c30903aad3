"""Files of weights that are others, cut, damaged or not finite: published checkpoints, autoencoders, encoders."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from bad_inputs.case import Case, command
from stablevelocity.data.shards import write_shard
from stablevelocity.evaluation.classifier import DigitClassifier, load_classifier, save_classifier
from stablevelocity.evaluation.extractors import load_extractor
from stablevelocity.evaluation.score import ReferenceStatistics
from stablevelocity.models.autoencoders import load_autoencoder
from stablevelocity.models.digits import build_digits_vit, save_digits_vit
from stablevelocity.models.encoders import load_encoder
from stablevelocity.models.networks import load_network
from stablevelocity.models.sit import SiT, build_sit
from stablevelocity.models.small_autoencoder import SmallAutoencoder
from stablevelocity.models.weight_files import save_tensors

State = dict[str, Any]

# --- published checkpoints: convert ----------------------------------------------------------------------------------


@functools.cache
def sit_state() -> dict[str, Tensor]:
    """A whole SiT-S/4: one number in the file for each tensor, so that a file is small."""
    with torch.device("meta"):
        model = build_sit("SiT-S/4", input_size=8)
    return {name: torch.zeros(()).expand(value.shape) for name, value in model.state_dict().items()}


def without(name: str) -> State:
    return {key: value for key, value in sit_state().items() if key != name}


def with_(**changes: Any) -> State:
    return sit_state() | {name.replace("__", "."): value for name, value in changes.items()}


TABLE, PATCHES, LAST = "y_embedder.embedding_table.weight", "x_embedder.proj.weight", "final_layer.linear.weight"
LAID = "is not laid out as SiT: "
CHECKPOINTS: list[tuple[str, Callable[[], Any], str]] = [
    ("a number", lambda: 3, "holds a int, expected a dictionary"),
    ("a list of tensors", lambda: [torch.zeros(2)], "holds a list, expected a dictionary"),
    ("a tensor", lambda: torch.zeros(2), "holds a Tensor, expected a dictionary"),
    ("nothing", dict, "has no entry 'ema'; there are "),
    ("no ema", lambda: {"model": sit_state()}, "has no entry 'ema'; there are model"),
    ("ema is a path", lambda: {"ema": "weights.pt", "model": sit_state()}, "has no entry 'ema'"),
    ("ema is empty", lambda: {"ema": {}}, LAID + PATCHES + " is missing"),
    ("weights of something else", lambda: {"ema": {"conv1.weight": torch.zeros(8, 3, 7, 7)}}, LAID),
    ("4,000 other entries", lambda: {f"layer.{k}.weight": torch.zeros(1) for k in range(4000)}, "and 3995 more"),
    ("an entry that is a number", lambda: {"ema": with_(step=5)}, "its entry step is a int"),
    ("an entry that is a text", lambda: {"ema": with_(name="SiT")}, "its entry name is a str"),
    ("an entry that is None", lambda: {"ema": with_(pos_embed=None)}, "its entry pos_embed is a NoneType"),
    (
        "an entry of integers",
        lambda: {"ema": with_(pos_embed=torch.zeros(1, 4, 384).long())},
        "is a torch.int64 tensor",
    ),
    ("an entry of complex numbers", lambda: {"ema": with_(x=torch.zeros(1).cfloat())}, "is a torch.complex64 tensor"),
    ("a sparse entry", lambda: {"ema": with_(pos_embed=torch.zeros(4, 4).to_sparse())}, "expected a tensor of numbers"),
    ("NaN in a weight", lambda: {"ema": with_(pos_embed=torch.full((1, 4, 384), torch.nan))}, "NaN .* in pos_embed"),
    (
        "infinity in bf16",
        lambda: {"ema": with_(pos_embed=torch.full((1, 4, 384), torch.inf).bfloat16())},
        "infinite in",
    ),
    ("an entry without data", lambda: {"ema": with_(pos_embed=torch.zeros(1, 4, 384, device="meta"))}, "has no data"),
    ("a name twice", lambda: {"ema": sit_state() | {"module.pos_embed": torch.zeros(1, 4, 384)}}, "pos_embed twice"),
    ("a number as a name", lambda: {"ema": sit_state() | {7: torch.zeros(1)}}, "does not fit SiT-S/4"),
    *(
        (f"without {name}", lambda name=name: {"ema": without(name)}, name.replace(".", r"\."))
        for name in (PATCHES, "pos_embed", TABLE, LAST, "t_embedder.mlp.0.weight", "blocks.3.attn.qkv.bias")
    ),
    ("patches of two axes", lambda: {"ema": with_(x_embedder__proj__weight=torch.zeros(384, 64))}, LAID + PATCHES),
    (
        "patches of width 0",
        lambda: {"ema": with_(x_embedder__proj__weight=torch.zeros(0, 4, 4, 4))},
        LAID + PATCHES,
    ),
    ("no tokens", lambda: {"ema": with_(pos_embed=torch.zeros(1, 0, 384))}, LAID + "pos_embed has shape"),
    ("no labels", lambda: {"ema": sit_state() | {TABLE: torch.zeros(0, 384)}}, LAID + TABLE),
    ("one label", lambda: {"ema": sit_state() | {TABLE: torch.zeros(1, 384)}}, "label table has 1 row"),
    ("truth values", lambda: {"ema": with_(pos_embed=torch.ones(1, 4, 384).bool())}, "is a torch.bool tensor"),
    ("a checkpoint in a checkpoint", lambda: {"ema": {"ema": sit_state()}}, "its entry ema is a dict"),
    ("a block of no number", lambda: {"ema": with_(blocks__x__attn__qkv__weight=torch.zeros(1))}, "depth 13"),
    ("a projector of no number", lambda: {"ema": with_(projectors__x=torch.zeros(1))}, "does not fit SiT-S/4"),
    (
        "more than single precision",
        lambda: {"ema": with_(pos_embed=torch.full((1, 4, 384), 1e300, dtype=torch.float64))},
        "infinite in pos_embed",
    ),
    ("a patch of 3", lambda: {"ema": with_(x_embedder__proj__weight=torch.zeros(384, 4, 3, 3))}, "patch 3 is no"),
    ("a label table of one axis", lambda: {"ema": sit_state() | {TABLE: torch.zeros(1001)}}, LAID + TABLE),
    ("1,000 labels", lambda: {"ema": sit_state() | {TABLE: torch.zeros(1000, 384)}}, "give --classes 1000 if"),
    ("a last layer of one axis", lambda: {"ema": sit_state() | {LAST: torch.zeros(64)}}, "does not fit SiT-S/4"),
    ("tokens that are no square", lambda: {"ema": with_(pos_embed=torch.zeros(1, 5, 384))}, "does not fit SiT-S/4"),
    ("a projector of three axes", lambda: {"ema": sit_state() | {"projectors.0.4.weight": torch.zeros(2, 2, 2)}}, LAID),
    ("a projector of a 5x5 convolution", lambda: {"ema": conv_projector(5)}, "does not fit SiT-S/4"),
    ("one block less", lambda: {"ema": blocks(11)}, "depth 11, width 384, patch 4 is no published size"),
    ("one block more", lambda: {"ema": blocks(13)}, "depth 13"),
    ("bare weights of unknown kind", sit_state, "give --kind ema or --kind raw"),
    ("wrapped bare weights of unknown kind", lambda: wrapped("_orig_mod.module."), "give --kind ema or --kind raw"),
    ("code to be run", lambda: {"ema": sit_state(), "hook": Path.touch}, "holds more than weights .*not opened"),
]


def blocks(count: int) -> State:
    """`count` blocks: some left out, or the first again."""
    state = {name: value for name, value in sit_state().items() if not name.startswith("blocks.")}
    for number in range(count):
        state |= {n.replace(".0.", f".{number}.", 1): v for n, v in sit_state().items() if n.startswith("blocks.0.")}
    return state


def conv_projector(side: int) -> State:
    weight = torch.zeros(()).expand(768, 384, side, side)
    return sit_state() | {"projectors.0.conv.weight": weight, "projectors.0.conv.bias": torch.zeros(768)}


def wrapped(prefix: str) -> State:
    return {prefix + name: value for name, value in sit_state().items()}


def converted(content: Callable[[], Any]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        torch.save(content(), folder / "x.pt")
        command("convert", folder / "x.pt", "--output", folder / "made" / "out.safetensors")

    return attempt


WORDS: list[tuple[str, tuple[object, ...], str]] = [
    ("another kind", ("--kind", "best"), "--kind"),
    ("classes that do not fit", ("--classes", 10), "--classes 10, but its label table has 1,001 rows"),
    ("no classes", ("--classes", 0), "--classes"),
    ("a negative step", ("--step", -5), "--step"),
]


def with_words(*words: object) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        torch.save({"ema": sit_state()}, folder / "x.pt")
        command("convert", folder / "x.pt", *words, "--output", folder / "made" / "out.safetensors")

    return attempt


FILES: list[tuple[str, bytes | None, str]] = [
    ("absent", None, "no such file"),
    ("empty", b"", "is not a file of torch.save"),
    ("text", b"hello", r"x\.pt"),
    ("a zip of nothing", b"PK\5\6" + bytes(18), "holds more than weights, or is damaged"),
    ("safetensors", save({"pos_embed": torch.zeros(2)}), "not opened|is not a file of torch.save"),
]


def file_converted(content: bytes | None, verb: str) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        if content is not None:
            (folder / "x.pt").write_bytes(content)
        command(verb, folder / "x.pt", "--output", folder / "made" / "out.safetensors")

    return attempt


def cut_checkpoint(folder: Path) -> None:
    torch.save({"ema": sit_state()}, folder / "x.pt")
    (folder / "x.pt").write_bytes((folder / "x.pt").read_bytes()[:-3000])
    command("convert", folder / "x.pt", "--output", folder / "made" / "out.safetensors")


ENCODER_FILES: list[tuple[str, Any, tuple[object, ...], str]] = [
    ("no such part", {"state_dict": {}}, ("--part", "teacher"), "has no entry 'teacher'; there are state_dict"),
    ("a part that is a tensor", {"teacher": torch.zeros(1)}, ("--part", "teacher"), "has no entry 'teacher'"),
    (
        "no such prefix",
        {"a.b": torch.zeros(1)},
        ("--prefix", "backbone."),
        r"no tensor named backbone\.\*; there are a\.b",
    ),
    ("no tensors", {"a": 1, 2: "b"}, (), r"no tensor named \*; there are a, 2"),
    ("NaN", {"a": torch.full((2,), torch.nan)}, (), "NaN or infinite in a"),
    ("NaN in 8 bits", {"a": torch.full((2,), torch.nan).to(torch.float8_e4m3fn)}, (), "NaN or infinite in a"),
    ("a sparse tensor", {"a": torch.eye(3).to_sparse()}, (), "its entry a is no dense tensor"),
    ("complex numbers", {"a": torch.zeros(3).cfloat()}, (), "its entry a is no dense tensor of real numbers"),
    ("a name of safetensors", {"__metadata__": torch.zeros(3)}, (), "cannot be named '__metadata__'"),
    ("a name of foreign bytes", {"\udcff": torch.zeros(3)}, (), r"cannot be named '\\udcff'"),
    ("a name that is the prefix", {"module.": torch.zeros(3)}, ("--prefix", "module."), "cannot be named ''"),
    ("no data", {"a": torch.zeros(2, device="meta")}, (), "its tensor a has no data"),
]


def encoder_converted(content: Any, words: tuple[object, ...]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        torch.save(content, folder / "x.pt")
        command("convert-encoder", folder / "x.pt", *words, "--output", folder / "made" / "out.safetensors")

    return attempt


# --- weights of a run: what every later verb opens ------------------------------------------------------------------

RUN: dict[str, Any] = {
    "name": "x-s0",
    "arm": "x",
    "seed": 0,
    "objective": "cfm",
    "stablevm": None,
    "alignment": None,
    "class_token": False,
    "training": {"model": {"depth": 1, "width": 16, "heads": 2, "patch": 2}},
}
INFO: dict[str, Any] = {
    "kind": "ema",
    "step": 1,
    "run": RUN,
    "shape": [2, 4, 4],
    "num_classes": 3,
    "feature_width": None,
}


def small_sit(**changes: int) -> dict[str, Tensor]:
    sizes = {"input_size": 4, "in_channels": 2, "depth": 1, "width": 16, "heads": 2, "patch_size": 2, "num_classes": 3}
    return dict(SiT(**(sizes | changes)).state_dict())  # pyright: ignore[reportArgumentType]


NETWORKS: list[tuple[str, Callable[[], State], dict[str, Any], str]] = [
    ("of no kind", small_sit, {"kind": None}, "does not say whether it holds raw or EMA"),
    ("without a run", small_sit, {"run": None}, "holds no weights of the run"),
    ("of a run of another form", small_sit, {"run": {"name": 1}}, "holds no weights of the run"),
    ("without classes", small_sit, {"num_classes": None}, "holds no weights of the run"),
    ("of another depth", lambda: small_sit(depth=2), {}, "holds no weights of the run"),
    ("of another width", lambda: small_sit(width=32), {}, "holds no weights of the run"),
    ("of other classes", small_sit, {"num_classes": 4}, "holds no weights of the run"),
    ("of other latents", small_sit, {"shape": [4, 8, 8]}, "holds no weights of the run"),
    ("with NaN", lambda: {k: v * torch.nan for k, v in small_sit().items()}, {}, "NaN or infinite in"),
    ("without a tensor", lambda: {k: v for k, v in small_sit().items() if k != "pos_embed"}, {}, "pos_embed"),
    ("with a tensor too many", lambda: small_sit() | {"extra": torch.zeros(1)}, {}, "extra"),
]


def opened(state: Callable[[], State], changes: dict[str, Any]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        save_tensors(folder / "w.safetensors", state(), INFO | changes)
        load_network(folder / "w.safetensors")

    return attempt


RAW: list[tuple[str, bytes, str]] = [
    ("empty", b"", "holds no weights in safetensors"),
    ("a .pt", b"PK\3\4" + bytes(100), "holds no weights in safetensors"),
    ("a pickle", b"\x80\x02}q\x00.", "holds no weights in safetensors"),
    ("cut in its header", save({"a": torch.zeros(9)})[:30], "holds no weights in safetensors"),
    ("cut in its data", save({"a": torch.zeros(9)})[:-4], "holds no weights in safetensors"),
    ("a header without end", (2**40).to_bytes(8, "little") + bytes(50), "holds no weights in safetensors"),
    ("a header that is no JSON", (8).to_bytes(8, "little") + b"nonsense", "holds no weights in safetensors"),
    ("no metadata", save({"a": torch.zeros(9)}), "does not say whether"),
    ("metadata of another form", save({"a": torch.zeros(9)}, {"info": "[1"}), "holds no weights in safetensors"),
    ("metadata that is a list", save({"a": torch.zeros(9)}, {"info": "[1]"}), "holds no weights in safetensors"),
]


def raw(content: bytes) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        (folder / "w.safetensors").write_bytes(content)
        load_network(folder / "w.safetensors")

    return attempt


# --- folders of models ----------------------------------------------------------------------------------------------


def autoencoder(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """A small autoencoder's folder, changed, as `autoencoder.pretrained` of a study names it."""

    def attempt(folder: Path) -> None:
        torch.manual_seed(0)
        SmallAutoencoder(widths=[8, 8], channels=2, side=8).save_pretrained(folder / "vae")
        change(folder / "vae")
        load_autoencoder(folder / "vae")

    return attempt


def config(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        known = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(known | changes))

    return change


def cut_file(name: str, keep: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def weights(
    change: Callable[[State], State], name: str = "diffusion_pytorch_model.safetensors"
) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        save_file(change(load_file(folder / name)), folder / name)

    return apply


def into_pipeline(folder: Path) -> None:
    inside = folder / "vae"
    inside.mkdir()
    for file in list(folder.glob("*.*")):
        file.rename(inside / file.name)


WEIGHTS = "diffusion_pytorch_model.safetensors"
AUTOENCODERS: list[tuple[str, Callable[[Path], object], str]] = [
    ("with weights cut", cut_file(WEIGHTS, 5000), "holds no autoencoder in diffusers' format, or is not whole"),
    ("with weights of 0 bytes", cut_file(WEIGHTS, 0), "holds no autoencoder in diffusers' format"),
    ("without weights", lambda folder: (folder / WEIGHTS).unlink(), "no such file|holds no autoencoder"),
    ("without config.json", lambda folder: (folder / "config.json").unlink(), "no config.json in diffusers' format"),
    ("that is a pipeline's", into_pipeline, r"no config.json in diffusers' format; give .*vae/vae"),
    ("with config.json cut", cut_file("config.json", 40), r"config\.json: is not whole JSON"),
    ("with a config.json that is a list", lambda f: (f / "config.json").write_text("[]"), "holds no autoencoder"),
    ("with another width", config(block_out_channels=[8, 16]), "holds no autoencoder in diffusers' format"),
    ("with other latent channels", config(latent_channels=4), "holds no autoencoder in diffusers' format"),
    ("of diffusers, with another width", config(block_out_channels=[16, 16], norm_num_groups=4), "autoencoder"),
    ("of diffusers, lacking tensors", config(layers_per_block=2), "autoencoder"),
    (
        "with NaN",
        weights(lambda s: s | {"quant_conv.bias": torch.full((4,), torch.nan)}),
        "infinite in quant_conv.bias",
    ),
    ("without a tensor", weights(lambda s: {k: v for k, v in s.items() if k != "quant_conv.bias"}), "quant_conv.bias"),
    ("with latents_mean", config(latents_mean=[0.0, 0.0], act_fn="relu"), "latents_mean and latents_std"),
]
ENCODERS: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "with weights cut",
        cut_file("model.safetensors", 3000),
        "holds no config.json and model.safetensors",
    ),
    ("without config.json", lambda folder: (folder / "config.json").unlink(), "no such file"),
    ("with config.json cut", cut_file("config.json", 10), "is not whole JSON"),
    (
        "with an unknown size",
        lambda f: (f / "config.json").write_text('{"info": 0, "depth": 1}'),
        "holds no config.json",
    ),
    (
        "with NaN",
        weights(lambda s: s | {"norm.bias": torch.full((64,), torch.nan)}, "model.safetensors"),
        "in norm.bias",
    ),
]


def digits_encoder(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        save_digits_vit(build_digits_vit(side=8, patch=4, width=64, depth=1, heads=4, classes=3), folder / "vit")
        change(folder / "vit")
        load_encoder("digits-vit", folder / "vit", grid=2)

    return attempt


def means_beyond_half_precision(folder: Path) -> None:
    """Finite weights whose latents are written as half precision cannot hold them: VAEs that want float32."""
    SmallAutoencoder(widths=[8, 8], channels=2, side=8).save_pretrained(folder / "vae")
    weights(lambda s: s | {"quant_conv.bias": torch.full((4,), 1e6)})(folder / "vae")
    (folder / "vae.json").write_text(json.dumps({"autoencoder": str(folder / "vae"), "revision": None}))
    write_shard(folder / "i.safetensors", {"images": np.zeros((3, 8, 8, 3), np.uint8), "labels": np.zeros(3, np.int64)})
    output = folder / "made" / "latents.safetensors"
    command(
        "latent-shard", "--images", folder / "i.safetensors", "--autoencoder", folder / "vae.json", "--output", output
    )


def classifier(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        save_classifier(DigitClassifier(size=8, num_classes=3), folder / "judge")
        change(folder / "judge")
        load_classifier(folder / "judge")

    return attempt


def pretrained_encoder(
    state: dict[str, Tensor] | bytes | None, file: str = "model.safetensors"
) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        if isinstance(state, bytes):
            (folder / file).write_bytes(state)
        elif state is not None:
            save_file(state, folder / file)
        load_encoder("dinov1-small", folder / file, grid=2)

    return attempt


def reference(content: bytes) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        (folder / "r.safetensors").write_bytes(content)
        ReferenceStatistics.load(folder / "r.safetensors")

    return attempt


def inception(content: bytes | None) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        if content is not None:
            (folder / "i.pth").write_bytes(content)
        load_extractor("inception", folder / "i.pth")

    return attempt


CASES = [Case(f"checkpoint: {name}", converted(content), expected) for name, content, expected in CHECKPOINTS]
CASES += [Case(f"convert with {name}", with_words(*words), expected) for name, words, expected in WORDS]
CASES += [
    Case(f"{verb} of a file that is {name}", file_converted(content, verb), expected)
    for verb in ("convert", "convert-encoder")
    for name, content, expected in FILES
]
CASES += [Case("checkpoint cut", cut_checkpoint, "is not a file of torch.save")]
CASES += [Case(f"encoder's file: {name}", encoder_converted(*given), line) for name, *given, line in ENCODER_FILES]
CASES += [Case(f"weights {name}", opened(state, changes), line) for name, state, changes, line in NETWORKS]
CASES += [Case(f"weights: {name}", raw(content), line) for name, content, line in RAW]
CASES += [Case(f"autoencoder {name}", autoencoder(change), line) for name, change, line in AUTOENCODERS]
CASES += [Case(f"digits-vit {name}", digits_encoder(change), line) for name, change, line in ENCODERS]
CASES += [
    Case("autoencoder beyond half precision", means_beyond_half_precision, "mean of 3 images .*largest value is 1e.06"),
    Case("classifier with weights cut", classifier(cut_file("model.safetensors", 900)), "of a digit classifier"),
    Case("classifier without weights", classifier(lambda f: (f / "model.safetensors").unlink()), "no such file"),
    Case(
        "classifier with a config that is text",
        classifier(lambda f: (f / "config.json").write_text("x")),
        "not whole JSON",
    ),
    Case("classifier of no folder", lambda folder: load_classifier(folder / "no") and None, "no such file"),
    Case("encoder absent", pretrained_encoder(None), "no weights at .* source: "),
    Case("encoder empty", pretrained_encoder(b""), "holds no weights of the encoder dinov1-small"),
    Case("encoder of another model", pretrained_encoder({"a": torch.zeros(2)}), "holds no weights of the encoder"),
    Case("encoder that is a .pth", pretrained_encoder(b"PK", "x.pth"), "is not safetensors; run"),
    Case("encoder of an unknown name", lambda folder: load_encoder("dino", folder, grid=2) and None, "expected one of"),
    Case("reference of 0 bytes", reference(b""), "holds no reference statistics"),
    Case("reference that lacks mu", reference(save({"sigma": torch.zeros(2)}, {"count": ""})), "holds no reference"),
    Case("reference without metadata", reference(save({"mu": torch.zeros(2)})), "holds no reference statistics"),
    Case("Inception absent", inception(None), "no Inception weights; put"),
    Case("Inception that is another file", inception(b"x"), "SHA-256 .* expected"),
    Case(
        "extractor of an unknown name",
        lambda f: load_extractor("dino", f) and None,
        "expected one of inception, digits",
    ),
]
