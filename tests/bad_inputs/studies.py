"""Studies whose keys contradict each other, or name what is not on this machine; `check` refuses them."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from bad_inputs.case import Case, command
from bad_inputs.study_keys import SMOKE, TINY, put

ALIGNED = {"label": "REPA", "alignment": {"schedule": "uniform"}}
HUB = {"pretrained": "a/b", "revision": "0" * 40}
#: (what is changed: dotted keys and values, what the line names)
CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    # Data.
    ({"images.shards": 2000}, r"images\.shards: 2000 shards, but only 1438 train images"),
    ({"images.held_out": 0.001}, r"images\.held_out: 2 held-out images, but the metrics need at least 10"),
    ({"images.held_out": 0.999}, r"images\.held_out: 2 train images, but the metrics need at least 10"),
    ({"images.held_out": 0.993}, r"images\.held_out: .* no readable image of class '0', '1', '5'"),
    ({"images.held_out": 0.01, "images.shards": 500}, r"images\.shards: 500 shards, but only 18 held-out images"),
    ({"images.count": 5}, r"images\.count: 5 asked for, but digits has 1438 train images"),
    ({"images": {"dataset": "cifar10"}}, r"images\.path: cifar10 needs the folder"),
    ({"images": {"dataset": "folder"}}, r"images\.path: folder needs the folder"),
    ({"images.path": "x"}, r"images\.path: digits ship with scikit-learn"),
    ({"images.size": 15}, r"images\.size: 15 is no multiple of 4"),
    ({"images.size": 2**13}, r"images\.size: .* less than or equal to 4096"),
    # Autoencoder.
    ({"autoencoder.widths": []}, r"autoencoder\.widths: .* at least 1 item"),
    ({"autoencoder.widths": [8] * 9}, r"autoencoder\.widths: .* at most 8 items"),
    ({"autoencoder.widths": [8] * 5}, r"images\.size: 16 is no multiple of 32"),
    ({"autoencoder.revision": "0" * 40}, r"autoencoder\.revision: given without autoencoder\.pretrained"),
    ({"autoencoder.decoder_revision": "0" * 40}, r"autoencoder\.decoder_revision: given without"),
    ({"autoencoder.pretrained": "a/b"}, r"autoencoder\.pretrained: the hub id 'a/b' needs a pinned revision"),
    ({"autoencoder": HUB}, r"autoencoder\.pretrained: 'a/b' at 0+ is not on this machine"),
    ({"autoencoder.pretrained": "/no/such"}, r"autoencoder\.pretrained: no folder '/no/such'"),
    ({"autoencoder.pretrained": "../a/b"}, r"autoencoder\.pretrained: no folder"),
    ({"autoencoder.pretrained": "a b/c", "autoencoder.revision": "1"}, r"autoencoder\.pretrained: no folder"),
    ({"autoencoder.decoder": "a/b"}, r"autoencoder\.decoder: the hub id 'a/b' needs a pinned revision"),
    # Encoder.
    ({"encoder.name": "dino"}, r"encoder\.name: Input should be one of dino"),
    ({"encoder.name": "dinov2-base"}, r"encoder\.path: dinov2-base needs the file or folder"),
    ({"encoder.path": "x"}, r"encoder\.path: digits-vit is trained here"),
    ({"encoder.grid": 16}, r"encoder\.grid: 16, but digits-vit has 4 tokens a side"),
    ({"images.size": 32}, r"encoder\.grid: 4, but digits-vit has 8 tokens a side"),
    ({"training.model.patch": 4, "training.model.width": 64}, r"encoder\.grid: 4, but the network of arm \S+ has 2"),
    ({"training.model.encoder_depth": 3}, r"training\.model\.encoder_depth: 3, but the network has 2 blocks"),
    ({"training.model": {"depth": 1}}, r"training\.model\.encoder_depth: 2, but the network has 1 blocks"),
    (
        {"arms.stablevm-va.training": {"model": {"encoder_depth": 9}}},
        r"arms\.stablevm-va\.training\.model\.encoder_depth: 9",
    ),
    (
        {"arms.reg": ALIGNED | {"class_token": True}, "encoder": {"name": "ijepa-huge", "path": "x", "grid": 4}},
        r"arms\.reg\.class_token: ijepa-huge has no class token",
    ),
    # Networks and training.
    ({"training.model.heads": 3}, r"training\.model\.width: 32 is no multiple of 4 and of heads \(3\)"),
    ({"training.model": {"width": 30, "heads": 3}}, r"training\.model\.width: 30 is no multiple"),
    (
        {"training.model": {"width": 65_536, "depth": 60_000, "encoder_depth": 1}},
        r"training\.model\.width: 65536 at depth 60000 makes more than 1e\+11 parameters",
    ),
    ({"training.model.name": "SiT-H/2"}, r"training\.model\.name: .* one of SiT-"),
    (
        {"arms.cfm.training": {"model": {"name": "SiT-S/8"}}, "images.size": 24, "encoder.grid": 6},
        r"images\.size: 24 is no multiple of 16",
    ),
    ({"training.steps": 100_000_000}, r"training\.steps: .* less than or equal to 99999999"),
    ({"training.milestones": [20]}, r"training\.milestones: each must be below steps \(20\)"),
    ({"training.milestones": [2, 2, 1]}, r"training\.milestones: each must be above the one before"),
    ({"training.milestones": [5, 3]}, r"training\.milestones: each must be above the one before"),
    ({"training.milestones": [0]}, r"training\.milestones\.0: .* greater than 0"),
    ({"training.seeds": [0, 0]}, r"training\.seeds: Each value should stand there once"),
    ({"training.seeds": []}, r"training\.seeds: .* at least 1 item"),
    ({"training.seeds": [-1]}, r"training\.seeds\.0: .* greater than or equal to 0"),
    ({"training.seeds": [2**63]}, r"training\.seeds\.0: .* less than"),
    ({"training.seeds": [True]}, r"training\.seeds\.0: Input should be a number, given True"),
    ({"training.micro_batch": 5}, r"training\.micro_batch: 5 does not divide batch \(32\)"),
    ({"training.micro_batch": 64}, r"training\.micro_batch: 64 does not divide batch \(32\)"),
    ({"training.betas": [1.0, 1.0]}, r"training\.betas\.0: .* less than 1"),
    ({"training.betas": [0.9]}, r"training\.betas\.1: Field required"),
    ({"training.betas": [0.9, 0.99, 0.9]}, r"training\.betas: "),
    ({"training.ema": 1.0}, r"training\.ema: .* less than 1"),
    ({"training.label_drop": 1.1}, r"training\.label_drop: .* less than or equal to 1"),
    ({"training.label_drop": 1.0}, r"samplers\.ode\.labels: random, but arm cfm trains the null class alone"),
    ({"training.lr": 1e300}, r"training\.lr: .* less than or equal to 1000000"),
    ({"training.precision": "fp8"}, r"training\.precision: "),
    ({"arms.cfm.training": {"seeds": [1, 1]}}, r"arms\.cfm\.training\.seeds: Each value should stand there once"),
    ({"arms.cfm.training": {"steps": float("inf")}}, r"arms\.cfm\.training\.steps: "),
    ({"arms.cfm.training": {"batch": True}}, r"arms\.cfm\.training\.batch: Input should be a number"),
    ({"arms.cfm.training": {"model": None}}, r"arms\.cfm\.training\.model: "),
    ({"arms.cfm.training": {"model": {"width": 30}}}, r"arms\.cfm\.training\.model\.width: 30 is no multiple"),
    ({"arms.cfm.training": {"label": "x"}}, r"arms\.cfm\.training\.label: no such key"),
    # Arms.
    ({"arms": {}}, r"arms: a study needs arms, or a section pretrained"),
    ({"arms.cfm.label": "StableVM + VA-REPA"}, r"arms\.stablevm-va\.label: .* is the label of arm cfm too"),
    ({"arms.cfm.stablevm": {"t_min": 0.3}}, r"arms\.cfm\.stablevm: given, but the objective is cfm"),
    ({"arms.cfm.class_token": True}, r"arms\.cfm\.class_token: REG aligns the patch tokens too"),
    ({"arms.stablevm-va.stablevm": {"t_min": 1.0}}, r"arms\.stablevm-va\.stablevm\.t_min: .* less than 1"),
    ({"arms.stablevm-va.stablevm": {"bank": {"capacity": 0}}}, r"bank\.capacity: .* greater than 0"),
    ({"arms.stablevm-va.stablevm": {"bank": {"capacity": 10**9}}}, r"bank\.capacity: .* less than or equal"),
    ({"arms.stablevm-va.alignment": {"xi": 1}}, r"arms\.stablevm-va\.alignment\.xi: .* less than 1"),
    ({"arms.stablevm-va.alignment": {"xi": "atuo"}}, r"arms\.stablevm-va\.alignment\.xi: .* given 'atuo'"),
    ({"arms.stablevm-va.alignment": {"xi": 0}}, r"arms\.stablevm-va\.alignment\.xi: .* greater than 0"),
    ({"arms.stablevm-va.alignment": {"k": float("nan")}}, r"arms\.stablevm-va\.alignment\.k: "),
    ({"arms.stablevm.lr": 1e-3, "arms.stablevm.label": "x"}, r"did you mean 'arms\.stablevm\.training\.lr'\?"),
    ({"training.learning_rate": 1}, r"training\.learning_rate: no such key; did you mean 'lr'\?"),
    ({"learning_rate": 1}, r"learning_rate: no such key; did you mean 'training\.lr'\?"),
    ({"arms.cfm.learning_rate": 1}, r"arms\.cfm\.learning_rate: no such key; did you mean 'arms\.cfm\.training\.lr'"),
    ({"batch_size": 1}, r"batch_size: no such key; did you mean '\w+\.batch'"),
    ({"sampling.guidance": 2}, r"sampling\.guidance: no such key; did you mean 'sampling\.samplers\.<name>\.guidance'"),
    ({"steps": 3}, r"steps: no such key; did you mean '\w+\.steps'"),
    ({"training.lrr": 1}, r"training\.lrr: no such key; did you mean 'lr'\?"),
    ({"trainign": {}}, r"trainign: no such key; did you mean 'training'\?"),
    ({"arms.cfm.training": {"lrr": 1}}, r"arms\.cfm\.training\.lrr: no such key; did you mean 'lr'\?"),
    ({"arms.cfm.objective": "cfmm"}, r"arms\.cfm\.objective: Input should be 'cfm', 'stf' or 'stablevm', given 'cfmm'"),
    ({"a\nb\x1b[31m": 1}, r"'a\\nb\\x1b\[31m': no such key"),
    # Samplers.
    ({"sampling.main": "sde"}, r"sampling\.main: unknown sampler 'sde'; there are ode"),
    ({"sampling.main": ""}, r"sampling\.main: unknown sampler ''"),
    ({"sampling.samplers": {}}, r"sampling\.main: unknown sampler 'ode'; there are none"),
    ({"sampling.arms": {"sde": ["cfm"]}}, r"sampling\.arms: unknown sampler 'sde'"),
    ({"sampling.arms": {"ode": ["x"]}}, r"sampling\.arms\.ode: unknown arm 'x'"),
    ({"sampling.arms": {"ode": []}}, r"sampling\.arms\.ode: .* at least 1 item"),
    ({"sampling.arms": {"ode": ["cfm", "cfm"]}}, r"sampling\.arms\.ode: Each value should stand there once"),
    ({"sampling.shards": 3}, r"sampling\.shards: 3 shards, but only 2 blocks of 32 images"),
    ({"sampling.shards": 100_000}, r"sampling\.shards: .* less than or equal to 99999"),
    ({"sampling.images": 8}, r"sampling\.images: 8 images, but the metrics need at least 10"),
    ({"sampling.samplers.ode": {"solver": "euler_maruyama", "steps": 1}}, r"samplers\.ode\.steps: 1, but euler_maru"),
    ({"sampling.samplers.ode": {"low_regime": "stablevs", "steps": 4}}, r"samplers\.ode\.low_steps: 9 below xi, but"),
    ({"sampling.samplers.ode.guidance_interval": [0.7, 0.2]}, r"guidance_interval: low must be below high"),
    ({"sampling.samplers.ode.guidance_interval": [0.2, 0.2]}, r"guidance_interval: low must be below high"),
    ({"sampling.samplers.ode.guidance_interval": [0.2, 1.2]}, r"guidance_interval\.1: .* less than or equal to 1"),
    ({"sampling.samplers.ode.guidance": 0.5}, r"samplers\.ode\.guidance: .* greater than or equal to 1"),
    (
        {"sampling.samplers.ode.guidance": 2, "training.label_drop": 0},
        r"samplers\.ode\.guidance: 2, but arm cfm trains",
    ),
    (
        {"sampling.samplers.ode.labels": "none", "training.label_drop": 0},
        r"samplers\.ode\.labels: none, but arm cfm trains no null class",
    ),
    (
        {"sampling.samplers.ode.guidance": 2, "sampling.samplers.ode.labels": "none", "training.label_drop": 1},
        r"samplers\.ode\.guidance: 2, but arm cfm is told no class",
    ),
    (
        {"arms.cfm": {"label": "STF", "objective": "stf", "stablevm": {"bank": {"capacity": 8}}}},
        r"arms\.cfm\.stablevm\.bank: holds fewer rows of a class than a batch \(32\)",
    ),
    ({"sampling.samplers.ode.noise_factor": 1.5}, r"samplers\.ode\.noise_factor: .* less than or equal to 1"),
    ({"sampling.samplers.ode.last_time": 1}, r"samplers\.ode\.last_time: .* less than 1"),
    ({"sampling.samplers.ode.step": 4}, r"samplers\.ode\.step: no such key; did you mean 'steps'"),
    ({"arms.CFM": {"label": "x"}}, r"arms\.cfm: differs from 'CFM' by case alone"),
    ({"sampling.samplers.ODE": {}}, r"sampling\.samplers\.ode: differs from 'ODE' by case alone"),
    # Gradients.
    ({"gradient_variance": {"arms": ["x"]}}, r"gradient_variance\.arms: unknown arm 'x'"),
    ({"gradient_variance": {"arms": []}}, r"gradient_variance\.arms: .* at least 1 item"),
    (
        {"gradient_variance": {"arms": ["cfm"], "batches": 1}},
        r"gradient_variance\.batches: .* greater than or equal to 2",
    ),
    (
        {"gradient_variance": {"arms": ["cfm"], "stablevm": {"bank": {"capacity": 8}}}},
        r"gradient_variance\.stablevm\.bank: holds fewer rows of a class than a batch of cfm \(32\)",
    ),
    (
        {"gradient_variance": {"arms": ["cfm"], "stablevm": {"t_min": "auto"}}},
        r"gradient_variance\.stablevm\.t_min: auto, but only an arm's",
    ),
    (
        {"gradient_variance": {"arms": ["cfm"], "stablevm": {"bank": {"dtype": "float16"}}}},
        r"gradient_variance\.stablevm\.bank\.dtype: float16, but both targets",
    ),
    # Sweeps.
    (
        {"arms.cfm.training": {"label_drop": 1}, "sampling.arms": {"ode": ["stablevm-va"]}},
        r"sampling\.sweep\.arms: cfm trains",
    ),
    ({"sampling.sweep.arms": ["x"]}, r"sampling\.sweep\.arms: unknown arm 'x'"),
    ({"sampling.sweep.arms": ["cfm", "cfm"]}, r"sampling\.sweep\.arms: Each value should stand there once"),
    ({"sampling.sweep.solvers": []}, r"sampling\.sweep\.solvers: .* at least 1 item"),
    ({"sampling.sweep.solvers": ["heun", "heun"]}, r"sampling\.sweep\.solvers: Each value should stand there once"),
    ({"sampling.sweep.steps": [8, 8]}, r"sampling\.sweep\.steps: Each value should stand there once"),
    ({"sampling.sweep": {"steps": [1]}}, r"sampling\.sweep\.steps: 1 given, but euler_maruyama needs at least 2"),
    ({"sampling.sweep": {"base_steps": 1}}, r"sampling\.sweep\.base_steps: 1 given, but euler_maruyama needs"),
    ({"sampling.sweep.low_steps": [3, 13]}, r"sampling\.sweep\.low_steps: 13 below xi, but only 12 base steps"),
    ({"sampling.sweep.xi": [0.5, 0.5]}, r"sampling\.sweep\.xi: Each value should stand there once"),
    ({"sampling.sweep.images": 9}, r"sampling\.sweep\.images: 9 images, but the metrics need at least 10"),
    # Evaluation.
    ({"evaluation.neighbours": 32}, r"sampling\.sweep\.images: 32 images, but the metrics need at least 33"),
    ({"evaluation.neighbours": 400}, r"images\.held_out: 359 held-out images, but the metrics need at least 401"),
    ({"evaluation.extractor": "inception"}, r"evaluation\.weights: the extractor inception needs the file"),
    ({"evaluation.weights": "x.pth"}, r"evaluation\.weights: given, but the extractor is digits"),
    ({"evaluation.reference": "no.npz"}, r"evaluation\.reference: there is no 'no\.npz'"),
    ({"evaluation.reference": "study.yaml"}, r"evaluation\.reference: .* is no \.npz, no manifest"),
    ({"evaluation": {"extractor": "inception", "weights": "."}}, r"evaluation\.weights: '\.' is a folder"),
    (
        {"arms": {"cfm": {"label": "x"}}, "autoencoder.widths": [8], "images.size": 18},
        r"images\.size: 18 is no multiple",
    ),
    ({"evaluation.seed": -1}, r"evaluation\.seed: .* greater than or equal to 0"),
    ({"images.seed": -1}, r"images\.seed: .* greater than or equal to 0"),
    ({"variance.seed": 2**64}, r"variance\.seed: .* less than"),
    ({"evaluation.bootstrap": 10**7}, r"evaluation\.bootstrap: .* less than or equal to 1000000"),
    # Experiments.
    ({"toy.objectives": []}, r"toy\.objectives: .* at least 1 item"),
    ({"toy.objectives": ["cfm", "cfm"]}, r"toy\.objectives: Each value should stand there once"),
    ({"toy.seeds": []}, r"toy\.seeds: .* at least 1 item"),
    ({"toy.times": [0.2, 0.2]}, r"toy\.times: Each value should stand there once"),
    ({"toy.times": [1.0]}, r"toy\.times\.0: .* less than 1"),
    ({"toy.references": 10}, r"toy\.references: 10, but toy\.batch is 256"),
    ({"variance.gmm_dimensions": [10, 10]}, r"variance\.gmm_dimensions: Each value should stand there once"),
    ({"variance.gmm_dimensions": [], "variance.data": []}, r"variance\.data: neither gmm_dimensions nor data"),
    ({"variance.gmm_times": 1}, r"variance\.gmm_times: .* greater than or equal to 2"),
    ({"variance.data_times": 1}, r"variance\.data_times: .* greater than or equal to 2"),
    ({"variance.data_samples": 1}, r"variance\.data_samples: .* greater than or equal to 2"),
    ({"variance.reference_counts": [1]}, r"variance\.reference_counts\.0: .* greater than or equal to 2"),
    ({"variance.reference_counts": []}, r"variance\.reference_counts: .* at least 1 item"),
    ({"variance.gmm_samples": 10**6, "variance.gmm_dimensions": [65_536]}, r"variance\.gmm_samples: .* fit no memory"),
]
FAMILY = "pretrained.families.sd35"
PRETRAINED: list[tuple[dict[str, Any], str]] = [
    ({"pretrained.families": {}}, r"pretrained\.families: .* at least 1 item"),
    ({"pretrained.families": {"sdxl": {}}}, r"pretrained\.families: .*given 'sdxl'"),
    ({FAMILY: {}}, r"families\.sd35\.prompts: the original model needs a benchmark's prompt file"),
    ({FAMILY: {"tiny": {}, "prompts": "x"}}, r"families\.sd35\.prompts: a tiny model has digit prompts"),
    ({FAMILY: {"tiny": {}, "folder": "x"}}, r"families\.sd35\.folder: a tiny model has digit prompts"),
    ({FAMILY: {"tiny": {}, "offload": "model"}}, r"families\.sd35\.offload: a tiny model fits everywhere"),
    ({FAMILY: {"prompts": "no.jsonl"}}, r"families\.sd35\.prompts: there is no 'no\.jsonl'"),
    ({FAMILY: {"prompts": "."}}, r"families\.sd35\.prompts: '\.' is a folder"),
    ({FAMILY: {"prompts": "study.yaml", "folder": "no"}}, r"families\.sd35\.folder: there is no 'no'"),
    ({FAMILY: {"prompts": "study.yaml", "folder": "."}}, r"families\.sd35\.folder: .*model_index\.json"),
    ({FAMILY: {"prompts": "study.yaml"}}, r"study\.yaml: line 1 is not JSON"),
    ({FAMILY + ".shards": 5000}, r"families\.sd35\.shards: 5000 shards, but only \d+ prompts"),
    ({"pretrained.families.wan22.shards": 61}, r"families\.wan22\.shards: 61 shards, but only 60 prompts"),
    ({FAMILY + ".category": "../../evil"}, r"families\.sd35\.category: String should match pattern"),
    ({"pretrained.low_steps": 31}, r"pretrained\.low_steps: 31 below xi, but only 30 steps of flux"),
    ({"pretrained.xi": 1}, r"pretrained\.xi: .* less than 1"),
    ({"pretrained.xi_sweep": [0.7, 0.7]}, r"pretrained\.xi_sweep: Each value should stand there once"),
    ({"pretrained.seed": -1}, r"pretrained\.seed: .* greater than or equal to 0"),
    ({"pretrained.gmm_dimensions": [16, 16]}, r"pretrained\.gmm_dimensions: Each value should stand there once"),
    ({FAMILY + ".prompts_per_task": 10**9}, r"families\.sd35\.prompts_per_task: .* less than or equal to 10000"),
    ({FAMILY + ".tiny.learning_rate": 1}, r"families\.sd35\.tiny\.learning_rate: no such key; did you mean 'lr'"),
]


def check(content: Any, folder: Path) -> None:
    """`stablevelocity check` of a study, as a user types it."""
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    with contextlib.chdir(folder):
        command("check", "study.yaml")


def changed(changes: dict[str, Any], base: dict[str, Any]) -> Callable[[Path], None]:
    content = base
    for keys, value in changes.items():
        content = put(content, tuple(keys.split(".")), value)
    return lambda folder: check(content, folder)


def pictures(root: Path, splits: dict[str, dict[str, int]]) -> None:
    """Folders of classes with so many pictures each."""
    for split, classes in splits.items():
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(root / split / name / f"{number}.png")


#: What lies in the folder of the data set, what the line names; no key of the study is wrong.
FOLDERS: list[tuple[str, dict[str, dict[str, int]], dict[str, Any], str]] = [
    ("no folder", {}, {}, r"images\.path: there is no"),
    ("no train", {"val": {"a": 2}}, {}, r"images\.path: .*neither train/<class>/<image>"),
    ("no val", {"train": {"a": 20, "b": 20}}, {}, r"images\.path: .*0 images in val/"),
    ("a class in val alone", {"train": {"a": 20}, "val": {"b": 20}}, {}, r"images\.path: .*train has not.*'b'"),
    ("an empty class", {"train": {"a": 9, "b": 0}, "val": {"a": 20, "b": 3}}, {}, r"images\.path: .* of class 'b'"),
    ("few in val", {"train": {"a": 30}, "val": {"a": 9}}, {}, r"9 images in val/, but the metrics need 10"),
    ("more shards than images", {"train": {"a": 30}, "val": {"a": 20}}, {"images.shards": 31}, r"images\.shards: 31"),
    ("too few by count", {"train": {"a": 30}, "val": {"a": 20}}, {"images.count": 31}, r"images\.count: 31 asked for"),
    ("count below the least", {}, {"images.count": 3}, r"images\.count: 3 train images, but the metrics need"),
    ("no CIFAR-10", {"x": {"a": 1}}, {"images.dataset": "cifar10"}, r"images\.path: no CIFAR-10 in"),
]


def of_folder(splits: dict[str, dict[str, int]], changes: dict[str, Any]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        if splits:
            pictures(folder / "data", splits)
        study = SMOKE | {"images": {"dataset": "folder", "path": "data", "size": 16}}
        changed(changes, study)(folder)

    return attempt


def other_files(study: dict[str, Any], files: dict[str, str]) -> Callable[[Path], None]:
    def attempt(folder: Path) -> None:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        changed(study, SMOKE)(folder)

    return attempt


VAE = {"vae/config.json": '{"block_out_channels": [8, 8, 8, 8]}', "vae/diffusion_pytorch_model.safetensors": ""}
DINO = {"name": "dinov2-base", "path": "dino", "grid": 4}
FILES: list[tuple[dict[str, Any], dict[str, str], str]] = [
    ({"autoencoder": {"pretrained": "vae"}}, {"vae/x": ""}, r"autoencoder\.pretrained: there is no 'vae/config\.json'"),
    ({"autoencoder": {"pretrained": "vae"}}, {"vae/config.json": "{}"}, r"autoencoder\.pretrained: there is no .*saf"),
    ({"autoencoder": {"pretrained": "vae"}}, VAE | {"vae/config.json": "{"}, r"vae/config\.json: is not whole JSON"),
    ({"autoencoder": {"pretrained": "vae"}}, VAE | {"vae/config.json": "[]"}, r"vae/config\.json holds no mapping"),
    (
        {"autoencoder": {"pretrained": "vae"}, "images.size": 24, "encoder.grid": 6},
        VAE,
        r"images\.size: 24 is no multi",
    ),
    ({"autoencoder": {"pretrained": "vae"}}, VAE, r"encoder\.grid: 4, but the network of arm stablevm-va has 1 tokens"),
    ({"encoder": DINO}, {"dino/x": ""}, r"encoder\.path: there is no 'dino/model\.safetensors'"),
    ({"encoder": DINO | {"path": "dino.pth"}}, {"dino.pth": ""}, r"encoder\.path: 'dino\.pth' is not safetensors"),
    ({"encoder": DINO | {"path": "gone"}}, {}, r"encoder\.path: there is no 'gone'"),
]


def cases() -> list[Case]:
    of_smoke = [(changes, changed(changes, SMOKE), expected) for changes, expected in CONTRADICTIONS]
    of_tiny = [(changes, changed(changes, TINY), expected) for changes, expected in PRETRAINED]
    found = [
        Case(f"{number}: {', '.join(changes)}", attempt, expected)
        for number, (changes, attempt, expected) in enumerate([*of_smoke, *of_tiny])
    ]
    found += [Case(f"data: {name}", of_folder(splits, changes), line) for name, splits, changes, line in FOLDERS]
    found += [Case(f"files: {expected}", other_files(study, files), expected) for study, files, expected in FILES]
    return found


CASES = cases()
