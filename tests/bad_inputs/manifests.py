"""Manifests and descriptions that are cut, of another stage, or say what is not so; shards that are not whole."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs.case import Case, command
from stablevelocity.data.latents import Latents
from stablevelocity.data.shards import ShardSet, read_shard, write_manifest, write_shard
from stablevelocity.data.stages.images import read_index, write_image_manifest, write_image_shard
from stablevelocity.study.settings import Images
from stablevelocity.training.features import open_features

ROWS = np.arange(6)


def images(folder: Path) -> Path:
    """A set of six images in two shards."""
    files = [folder / "a.safetensors", folder / "b.safetensors"]
    for number, file in enumerate(files):
        arrays = {"images": np.full((3, 4, 4, 3), number, np.uint8), "labels": ROWS[:3], "rows": ROWS[:3]}
        write_shard(file, arrays)
    write_manifest(folder / "m.json", files, num_classes=3, class_names=["a", "b", "c"])
    return folder / "m.json"


Change = Callable[[dict[str, Any]], object]
CHANGES: list[tuple[str, Change, str]] = [
    ("without shards", lambda m: m.pop("shards"), "has no 'shards'"),
    ("without arrays", lambda m: m.pop("arrays"), "has no 'arrays'"),
    ("of no shard", lambda m: m.update(shards=[]), "its shards hold no `arrays`"),
    ("whose shards are a number", lambda m: m.update(shards=3), "is no manifest of shards"),
    ("whose shards are names", lambda m: m.update(shards=["a.safetensors"]), "is no manifest of shards"),
    ("whose arrays are a list", lambda m: m.update(arrays=["images"]), "is no manifest of shards"),
    ("whose arrays have no type", lambda m: m["arrays"]["images"].pop("dtype"), "is no manifest of shards"),
    ("with an unknown type", lambda m: m["arrays"]["images"].update(dtype="u3"), "is no manifest of shards"),
    ("with a shape of text", lambda m: m["arrays"]["images"].update(shape="44"), "its arrays are not those of"),
    ("with a shape of null", lambda m: m["arrays"]["images"].update(shape=None), "is no manifest of shards"),
    ("with another type", lambda m: m["arrays"]["images"].update(dtype="float32"), "its arrays are not those of"),
    ("with another shape", lambda m: m["arrays"]["images"].update(shape=[8, 8, 3]), "its arrays are not those of"),
    ("with an array too many", lambda m: m["arrays"].update(x={"dtype": "u1", "shape": []}), "this shard has no 'x'"),
    ("without the images", lambda m: m["arrays"].pop("images"), "its shards hold no `images`"),
    *((f"without {key}", lambda m, key=key: m["shards"][1].pop(key), "is no manifest") for key in ("file", "count")),
    *((f"without {key}", lambda m, key=key: m["shards"][1].pop(key), "is no manifest") for key in ("bytes", "sha256")),
    ("of one shard twice", lambda m: m["shards"].append(m["shards"][0]), "lists a shard twice"),
    ("of more rows than its shards have", lambda m: m.update(count=7), "not the sum of its shards"),
    ("with another count", lambda m: m["shards"][0].update(count=2), "its arrays are not those of"),
    ("with a count of text", lambda m: m["shards"][0].update(count="many"), "is no manifest of shards"),
    ("with another size", lambda m: m["shards"][0].update(bytes=7), "differs from its checksum"),
    ("with another checksum", lambda m: m["shards"][0].update(sha256="0" * 64), "differs from its checksum"),
    ("with a checksum of null", lambda m: m["shards"][0].update(sha256=None), "differs from its checksum"),
    ("of a shard that is not there", lambda m: m["shards"][0].update(file="c.safetensors"), "shard is missing"),
    ("of a shard elsewhere", lambda m: m["shards"][0].update(file="/etc/passwd"), "is no bare file name"),
    ("of a shard above", lambda m: m["shards"][0].update(file="../a.safetensors"), "is no bare file name"),
    ("of a shard without a name", lambda m: m["shards"][0].update(file=""), "is no bare file name"),
    ("of a shard that is the folder", lambda m: m["shards"][0].update(file="."), "is no bare file name"),
    ("of a shard whose name is a number", lambda m: m["shards"][0].update(file=5), "is no bare file name"),
    ("of a shard with a zero byte", lambda m: m["shards"][0].update(file="a\0"), "is no bare file name"),
]
TEXTS: list[tuple[str, bytes, str]] = [
    ("empty", b"", "is not whole JSON"),
    ("cut", b'{"count": 6, "arrays": {"ima', "is not whole JSON"),
    ("text", b"manifest", "is not whole JSON"),
    ("a list", b"[]", "has no 'arrays'"),
    ("null", b"null", "has no 'arrays'"),
    ("a number", b"6", "has no 'arrays'"),
    ("UTF-16", '{"count": 6}'.encode("utf-16"), "is not whole JSON"),
    ("zeros", bytes(200), "is not whole JSON"),
    ("nested without end", b"[" * 100_000, "is not whole JSON"),
]


def changed(change: Change) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        manifest = images(folder)
        content = json.loads(manifest.read_text())
        change(content)
        manifest.write_text(json.dumps(content))
        ShardSet(manifest, "images")

    return attempt


def text(content: bytes) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        images(folder).write_bytes(content)
        command("export-images", folder / "m.json", "--png", folder / "made")

    return attempt


# --- shards ----------------------------------------------------------------------------------------------------------


def header(entry: Any, data: bytes = bytes(8)) -> bytes:
    content = json.dumps(entry).encode()
    return len(content).to_bytes(8, "little") + content + data


ENTRY = {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}
SHARDS: list[tuple[str, bytes, str]] = [
    ("empty", b"", "is no shard in safetensors"),
    ("of 7 bytes", b"x" * 7, "is no shard in safetensors"),
    ("of zeros", bytes(100), "is no shard in safetensors"),
    ("text", b"no shard, but a longer text", "is no shard in safetensors"),
    ("with a header that is too long", (2**62).to_bytes(8, "little") + bytes(50), "ends within its header"),
    ("cut in its header", header({"images": ENTRY})[:30], "ends within its header"),
    ("whose header is a number", header(5), "is no shard in safetensors"),
    ("cut in its data", header({"images": ENTRY}, bytes(5)), "is no whole shard"),
    ("with bytes too many", header({"images": ENTRY}, bytes(9)), "is no whole shard"),
    ("of no array", header({}, b""), "no 'images'"),
    ("of bf16", header({"images": ENTRY | {"dtype": "BF16", "shape": [4]}}), "is no whole shard"),
    ("without offsets", header({"images": {"dtype": "U8", "shape": [8]}}), "is no whole shard"),
    ("whose entry is a number", header({"images": 5}), "is no whole shard"),
    ("with a negative shape", header({"images": ENTRY | {"shape": [-8]}}), "is no whole shard"),
    ("with another array", header({"latents": ENTRY}), "has no 'images'; it has latents"),
    ("with a shape of fewer bytes", header({"images": ENTRY | {"shape": [2]}}), "other bytes than its shape says"),
    ("with offsets before its data", header({"images": ENTRY | {"data_offsets": [-8, 8]}}), "is no whole shard"),
    ("with a gap", header({"images": ENTRY | {"shape": [4], "data_offsets": [4, 8]}}), "is no whole shard"),
    ("with arrays in one place", header({"images": ENTRY, "labels": ENTRY}), "is no whole shard"),
]


def shard(content: bytes) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        (folder / "s.safetensors").write_bytes(content)
        read_shard(folder / "s.safetensors", "images")

    return attempt


# --- what one stage hands to the next --------------------------------------------------------------------------------


def handed(verb: str, *words: str, **files: Any) -> Callable[[Path], None]:
    """The verb on files by option, in a folder with the images' manifest m.json and its shards a and b."""

    def attempt(folder: Path) -> None:
        images(folder)
        for name, content in files.items():
            (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
        given = [str(folder / word) if word.endswith((".json", ".safetensors")) else word for word in words]
        command(verb, *given, "--output", folder / "made" / "out.json")

    return attempt


def of_latents(folder: Path) -> None:
    Latents(images(folder))


def latents_without_scale(folder: Path) -> None:
    half = np.zeros((6, 2, 2, 2), np.float16)
    write_shard(folder / "l.safetensors", {"mean": half, "std": half, "labels": ROWS})
    write_manifest(folder / "l.json", [folder / "l.safetensors"], num_classes=3)
    Latents(folder / "l.json")


LATENTS: list[tuple[str, dict[str, Any], str]] = [
    *((f"scale {scale!r}", {"scale": scale}, "no number above 0") for scale in (0, -1.0, np.nan, np.inf, "x", None)),
    *((f"classes {count!r}", {"num_classes": count}, "num_classes is no number") for count in ("many", None, [3])),
    ("fewer classes than labels", {"num_classes": 2}, "its labels are not those of 2 classes"),
    ("no class", {"num_classes": 0}, "its labels are not those of 0 classes"),
]


def latents(changes: dict[str, Any]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        half = np.zeros((3, 2, 2, 2), np.float16)
        write_shard(folder / "l.safetensors", {"mean": half, "std": half, "labels": ROWS[:3]})
        info = {"num_classes": 3, "autoencoder": "a", "identity": "a", "scale": 1.0} | changes
        write_manifest(folder / "l.json", [folder / "l.safetensors"], **info)
        Latents(folder / "l.json")

    return attempt


def features(folder: Path, count: int, tokens: int) -> None:
    write_shard(folder / "f.safetensors", {"tokens": np.zeros((count, tokens, 3), np.float16)})
    write_manifest(folder / "f.json", [folder / "f.safetensors"], encoder="x")
    open_features(folder / "f.json", 6, 2)


def index(content: bytes) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        (folder / "i.csv").write_bytes(content)
        read_index(folder / "i.csv")

    return attempt


def digits_index(content: str) -> Callable[[Path], None]:
    """The shard and the manifest of an index of digits, which another hand has changed."""

    def attempt(folder: Path) -> None:
        (folder / "i.csv").write_text(f"key,label\n{content}\n")
        write_image_shard(Images(), folder / "i.csv", 0, 1, folder / "s.safetensors")
        shards = [folder / "s.safetensors"]
        write_image_manifest(Images(), folder / "i.csv", shards, folder / "made" / "m.json", folder / "made" / "c.csv")

    return attempt


CHANGED = [("x,1", "lists what digits has not"), ("9999,1", "lists what digits has not"), ("0000,10", "has label 10")]
CHANGED += [("0000,-1", "is no index of images"), ("0000," + "9" * 30, "is no index of images")]
INDICES = [b"", b"a,b\n1,2\n", b"key,label\nx,first\n", b"key,label\nx\n", b"key,label\n"]
INDICES += [b"\xff\xfe\x00", b"key,label\n" + b'"' + b"x" * 200_000 + b'",1\n']
SHARD, MANIFEST = ("--images", "a.safetensors"), ("--images", "m.json")
VAE, DINO = ("--autoencoder", "x.json"), ("--encoder", "x.json")

CASES = [Case(f"manifest {name}", changed(change), line) for name, change, line in CHANGES]
CASES += [Case(f"manifest that is {name}", text(content), line) for name, content, line in TEXTS]
CASES += [Case(f"shard {name}", shard(content), line) for name, content, line in SHARDS]
CASES += [Case(f"index {content[:20]!r}", index(content), "is no index of images") for content in INDICES]
CASES += [Case(f"index with {content[:12]}", digits_index(content), line) for content, line in CHANGED]
CASES += [Case(f"latents with {name}", latents(changes), line) for name, changes, line in LATENTS]
CASES += [
    Case("latents that are images", of_latents, "its shards hold no `mean`"),
    Case("latents without a scale", latents_without_scale, "has no 'autoencoder'; expected a manifest of latents"),
    Case("features of other images", lambda folder: features(folder, 5, 4), "5 rows, but there are 6 latents"),
    Case(
        "features of another grid", lambda folder: features(folder, 6, 9), "gives 9 tokens, but the network has 2 x 2"
    ),
    Case(
        "latent-shard: description cut", handed("latent-shard", *SHARD, *VAE, x='{"auto'), "x.json: is not whole JSON"
    ),
    Case(
        "latent-shard: another description", handed("latent-shard", *SHARD, *VAE, x={"name": "y"}), "no 'autoencoder'"
    ),
    Case("latent-shard: description is a list", handed("latent-shard", *SHARD, *VAE, x=[1]), "has no 'autoencoder'"),
    Case("latent-shard: no description", handed("latent-shard", *SHARD, *VAE), "x.json: no such file"),
    Case(
        "latent-shard: the manifest as a shard",
        handed("latent-shard", *MANIFEST, *VAE, x={"autoencoder": "no", "revision": None}),
        "is not on this machine|no shard",
    ),
    Case(
        "latent-manifest: another description",
        handed("latent-manifest", *MANIFEST, *VAE, "a.safetensors", x={}),
        "no 'a",
    ),
    Case(
        "feature-shard: another description", handed("feature-shard", *SHARD, *DINO, x={"name": "y"}), "has no 'path'"
    ),
    Case(
        "feature-shard: an unknown encoder",
        handed("feature-shard", *SHARD, *DINO, x={"name": "y", "path": "z", "grid": 2}),
        "encoder 'y' given, expected one of",
    ),
    Case(
        "feature-manifest: another description",
        handed("feature-manifest", *DINO, "a.safetensors", x={"name": "y"}),
        "has no 'identity'",
    ),
    Case(
        "feature-manifest: a shard that is a manifest",
        handed("feature-manifest", *DINO, "m.json", x={"identity": "y"}),
        "is no shard in safetensors",
    ),
    Case(
        "online-features: another description", handed("online-features", *DINO, *MANIFEST, x={}), "has no 'identity'"
    ),
]
