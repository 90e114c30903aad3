"""Where each file of a study's results lies: the one place that says it, for the rules, the report and cluster jobs.

A part left out stands as Snakemake's wildcard, so one function gives both the pattern of a rule and a file:

>>> Layout("results/digits").image_shard()
'results/digits/data/images/{split}-{shard}.safetensors'
>>> Layout("results/digits").image_shard("train", 3)
'results/digits/data/images/train-00003.safetensors'
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PUBLISHED = Path("config/published")
DIGITS = {"step": 8, "shard": 5}  # of these numbers in the names of files


def published_folder() -> Path:
    """The paper's numbers."""
    return committed(PUBLISHED)


def committed(folder: Path) -> Path:
    """A folder of the clone that one works in, else of the clone that this package lies in."""
    return folder if folder.is_dir() else Path(os.path.relpath(Path(__file__).parents[2] / folder))


def _filled(part: str, value: int | str) -> str:
    return f"{value:0{DIGITS[part]}d}" if part in DIGITS and isinstance(value, int) else str(value)


def _file(path: str) -> Any:
    """A property: one file."""
    return property(lambda files: files.below(path))


def _files(pattern: str, **defaults: str) -> Callable[..., Any]:
    """A method that takes the parts in braces, in this order or by name; one left out is its default or a wildcard."""
    parts = re.findall(r"{(\w+)}", pattern)
    wildcards = {part: f"{{{part}}}" for part in parts} | defaults

    def path(files: Any, *values: int | str, **named: int | str) -> Any:
        given = wildcards | dict(zip(parts[: len(values)], values, strict=True)) | named
        if given.keys() != wildcards.keys():
            raise TypeError(f"{pattern} has no part {', '.join(given.keys() - wildcards.keys())}")
        return files.below(pattern.format_map({part: _filled(part, value) for part, value in given.items()}))

    return path


@dataclass(frozen=True)
class RunFiles:
    """Paths of one training run, in its folder: what its rule declares, and what only its jobs write."""

    folder: Path

    def below(self, path: str) -> Path:
        return self.folder / path

    @property
    def results(self) -> Path:
        """results/<study>"""
        return self.folder.resolve().parent.parent

    weights = _files("weights/step-{step}.safetensors")
    metrics = _file("metrics.csv")
    alignment_curve = _file("alignment.csv")
    # A folder for each state of settings, data and code, with the growing metrics.csv.
    checkpoints = _files("checkpoints/{run_hash}")
    begun = _file("checkpoints/begun.json")  # which code began the run, by the hash of its settings and data
    lock = _file("job/lock")  # held by a process that trains the run itself or decides whether to submit it
    record = _file("job/job.json")  # which job has the run: by its submitter, before and after the submission
    state = _file("job/state.json")  # what the job says of itself: by its last attempt only
    logs = _file("job/logs")  # what the job printed

    @property
    def growing_metrics(self) -> list[Path]:
        """metrics.csv of every folder of checkpoints that has one, the one written last at the end."""
        files = self.folder.glob("checkpoints/*/metrics.csv")
        return sorted(files, key=lambda path: path.stat().st_mtime)


@dataclass(frozen=True)
class Layout:
    """Paths of the results of one study below `root`; an empty root gives paths relative to the results folder."""

    root: str = ""

    def below(self, path: str) -> str:
        return f"{self.root}/{path}" if self.root else path

    study = _file("study.json")
    lock = _file("lock")  # held by the Snakemake that works on the study
    log = _files("logs/{name}.log")

    # --- data ----------------------------------------------------------------------------------------------

    image_index = _files("data/images/{split}.index.csv")
    image_shard = _files("data/images/{split}-{shard}.safetensors")
    image_manifest = _files("data/images/{split}.json")
    unreadable_images = _files("data/images/{split}.corrupt.csv")
    # What the autoencoder is and where; one trained here lies in the folder of that name beside it.
    autoencoder = _file("data/autoencoder.json")
    latent_shard = _files("data/latents/{split}-{shard}.safetensors")
    latents = _file("data/latents/train.json")
    encoder = _file("data/encoder.json")
    encoder_weights = _file("data/encoder/model.safetensors")
    feature_shard = _files("data/features/train-{shard}.safetensors")
    features = _file("data/features/train.json")

    @property
    def autoencoder_files(self) -> list[str]:
        names = ("diffusion_pytorch_model.safetensors", "config.json")
        return [self.below(f"data/autoencoder/{name}") for name in names]

    # --- experiments ---------------------------------------------------------------------------------------

    variance_curve = _files("variance/{source}.csv")
    variance_split_point = _files("variance/{source}.split_point.csv")
    variance_curves = _file("variance/curves.csv")
    split_points = _file("variance/split_points.csv")
    variance_references = _file("variance/references.csv")
    toy_folder = _file("toy")
    toy = _files("toy/{name}.csv")  # error, target_variance, gradient_variance or cost
    exact_flow = _file("exact_flow/samples.csv")
    latent_spectrum = _file("exact_flow/latent_spectrum.csv")

    # --- training and sampling -----------------------------------------------------------------------------

    runs = _file("runs")
    weights = _files("runs/{run}/weights/step-{step}.safetensors")
    training_metrics = _files("runs/{run}/metrics.csv")
    alignment_curve = _files("runs/{run}/alignment.csv")
    sample_shard = _files("samples/{run}/step-{step}/{sampler}/shard-{shard}.safetensors")
    samples = _files("samples/{run}/step-{step}/{sampler}/manifest.json")

    def run(self, run: str) -> RunFiles:
        return RunFiles(Path(self.runs) / run)

    # --- evaluation ----------------------------------------------------------------------------------------

    # The digit classifier that makes the features of FID; its files lie in the folder of that name beside it.
    classifier = _file("metrics/judge.json")
    reference_statistics = _file("metrics/reference.safetensors")
    fidelity = _files("metrics/fidelity/{run}/step-{step}/{sampler}.csv")
    # Metrics of real images against real images: the least that a perfect generator could reach.
    real_baseline = _file("metrics/floor.csv")
    sweep = _files("metrics/sweep/{run}.csv")
    sweep_images = _files("metrics/sweep/{run}.images.csv")
    gradient_variance = _files("metrics/gradient_variance/{run}.csv")

    @property
    def classifier_files(self) -> list[str]:
        return [self.below(f"metrics/judge/{name}") for name in ("config.json", "model.safetensors")]

    # --- pretrained models ---------------------------------------------------------------------------------

    tiny_model = _files("pretrained/{family}/model/training.json")
    prompts = _files("pretrained/{family}/prompts.jsonl")
    family_shard = _files("pretrained/{family}/samples/shard-{shard}.json")
    family_metrics = _files("pretrained/{family}/metrics.csv")
    family_pairs = _files("pretrained/{family}/pairs.csv")
    video_comparison = _files("pretrained/{family}/comparison.{suffix}", suffix="mp4")  # and a small gif for the page
    detector_accuracy = _file("pretrained/judge.json")
    scheduler_errors = _file("pretrained/scheduler_errors.csv")

    # --- report --------------------------------------------------------------------------------------------

    table = _files("tables/{table}.csv")
    figure = _files("figures/{figure}.{suffix}", suffix="pdf")
    paper_table = _files("paper/{table}.{suffix}", suffix="csv")  # in the paper's rows and columns; csv, md, tex, html
    claims = _file("claims.json")
    report = _file("report.html")
