"""What a job's process imports: each heavy package costs it seconds before any work (docs/running.md).

The table says which of `HEAVY` a verb may load by the import statements of its function. Verbs of the pretrained
models (`NEED_DIFFUSERS`) are left out: they need diffusers and all that it imports.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import stablevelocity.cli.verbs as verbs

HEAVY = [
    "torch",
    "timm",
    "diffusers",
    "torchvision",
    "transformers",
    "torch._dynamo",
    "pandas",
    "matplotlib",
    "scipy",
    "sklearn",
]

VERBS = {
    "image_index": "",
    "image_shard": "",
    "image_manifest": "",
    "autoencoder": "torch",
    "latent_shard": "torch",
    "latent_manifest": "",
    "encoder": "torch",  # and timm, where the network is built
    "feature_shard": "torch",
    "feature_manifest": "",
    "online_features": "",
    "download": "torch",
    "convert": "torch",
    "convert_encoder": "torch",
    "sample": "torch",
    "sample_manifest": "",
    "export_images": "torch",
    "gmm_variance": "torch pandas",
    "data_variance": "torch pandas",
    "variance_references": "torch pandas",
    "exact_flow": "torch diffusers torch._dynamo scipy pandas",
    "latent_spectrum": "torch pandas",
    "toy": "torch pandas",
    "join_tables": "pandas",
    "alignment_curve": "torch pandas",
    "gradient_variance": "torch pandas",
    "train": "",  # the submitter: the training runs in a process of its own
    "check": "",
    "plan": "torch",
    "revalidate": "torch pandas",
    "schema": "",
    "verify": "pandas",  # compares tables
}
#: Of the verbs of a file that the table does not name.
FILES = {"evaluation": "torch pandas", "report": "pandas matplotlib scipy", "training": "", "study": ""}

NEED_DIFFUSERS = ("pretrained", "tuning")

#: What users import without the rest of the project's requirements.
LIBRARY = {
    "stablevelocity.targets": "torch",
    "stablevelocity.alignment": "torch",
    "stablevelocity.sampling": "torch",
    "stablevelocity.schedulers": "torch diffusers torch._dynamo scipy safetensors",  # the last three by diffusers
}
OTHER_REQUIREMENTS = [
    "pydantic",
    "typer",
    "safetensors",
    "timm",
    "pandas",
    "sklearn",
    "matplotlib",
    "accelerate",
    "torchmetrics",
    "submitit",
]

# The training job itself, and the network that a study of ImageNet trains.
MODULES = {"stablevelocity.training.trainer": "torch", "stablevelocity.models.sit": "torch"}

# One process for rows that may load the same packages: it imports torch and pandas once and forks for each row.
PROBE = """
import json, os, sys
rows, preload, names = json.load(sys.stdin)
for name in preload:
    __import__(name)
for name, statements in rows.items():
    read, write = os.pipe()
    if not os.fork():
        exec(statements)
        os.write(write, json.dumps([name, [n for n in names if n in sys.modules]]).encode())
        os._exit(0)
    os.close(write)
    print(os.read(read, 2**16).decode(), flush=True)
    os.close(read)
    os.wait()
"""


def loaded_by(rows: dict[str, tuple[str, str]]) -> dict[str, set[str]]:
    """The packages that are loaded after each row's statements; rows are (statements, what they may load)."""
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for name, (statements, allowed) in rows.items():
        preload = tuple(package for package in ("torch", "pandas") if package in allowed.split())
        groups.setdefault(preload, {})[name] = statements
    found = {}
    for preload, statements in groups.items():
        given = json.dumps([statements, preload, HEAVY + OTHER_REQUIREMENTS])
        output = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROBE], input=given, capture_output=True, text=True, check=True
        )
        found |= {name: set(names) for name, names in map(json.loads, output.stdout.splitlines())}
        assert statements.keys() <= found.keys(), output.stderr
    return found


def verb_rows() -> dict[str, tuple[str, str]]:
    """Import statements of each verb, those of its file included."""
    rows = {}
    for file in sorted(Path(verbs.__path__[0]).glob("*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.decorator_list and file.stem not in NEED_DIFFUSERS:
                inside = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
                statements = [f"import stablevelocity.cli.verbs.{file.stem}", *map(ast.unparse, inside)]
                rows[node.name] = "\n".join(statements), VERBS.get(node.name, FILES.get(file.stem))
    return rows


def test_verbs_import_no_heavy_package_that_they_do_not_use():
    rows = verb_rows()
    assert rows.keys() >= VERBS.keys()
    undeclared = [name for name, (_, allowed) in rows.items() if allowed is None]
    assert not undeclared
    extra = {name: names & set(HEAVY) - set(rows[name][1].split()) for name, names in loaded_by(rows).items()}
    assert {name: names for name, names in extra.items() if names} == {}


def test_modules_import_no_heavy_package_that_they_do_not_use():
    found = loaded_by({name: (f"import {name}", allowed) for name, allowed in MODULES.items()})
    for name, allowed in MODULES.items():
        assert found[name] & set(HEAVY) == set(allowed.split())


def test_the_library_needs_torch_alone_and_its_schedulers_diffusers():
    found = loaded_by({name: (f"import {name}", allowed) for name, allowed in LIBRARY.items()})
    for name, allowed in LIBRARY.items():
        assert found[name] <= set(allowed.split())
        assert "torch" in found[name]


@pytest.fixture
def small_autoencoder(tmp_path):
    from stablevelocity.models.small_autoencoder import SmallAutoencoder

    SmallAutoencoder(widths=[8], channels=2, side=8).save_pretrained(tmp_path)
    return tmp_path


def test_a_small_autoencoder_is_loaded_and_run_without_diffusers(small_autoencoder):
    statements = f"""
import numpy, torch
from stablevelocity.models.autoencoders import decode_latents, encode_images, load_autoencoder
model = load_autoencoder({str(small_autoencoder)!r})
means, _ = encode_images(model, numpy.zeros((2, 8, 8, 3), numpy.uint8))
assert decode_latents(model, torch.from_numpy(means), 1.0).shape == (2, 8, 8, 3)
"""
    assert loaded_by({"row": (statements, "torch")})["row"] & set(HEAVY) == {"torch"}
