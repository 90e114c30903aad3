"""Where each file of a study's results lies: the one place that says it, for the rules, the report and cluster jobs.

A part left out stands as Snakemake's wildcard, so one function gives both the pattern of a rule and a file:

>>> Layout("results/digits").image_shard()
'results/digits/data/images/{split}-{shard}.safetensors'
>>> Layout("results/digits").image_shard("train", 3)
'results/digits/data/images/train-00003.safetensors'
"""

import os
from dataclasses import dataclass
from pathlib import Path

PUBLISHED = Path("config/published")


def published_folder() -> Path:
    """The paper's numbers: of the clone that one works in, else of the clone that this package lies in."""
    return PUBLISHED if PUBLISHED.is_dir() else Path(os.path.relpath(Path(__file__).parents[2] / PUBLISHED))


def _digits(number: int | str, width: int) -> str:
    return number if isinstance(number, str) else f"{number:0{width}d}"


@dataclass(frozen=True)
class RunFiles:
    """Paths of one training run, in its folder: what its rule declares, and what only its jobs write."""

    folder: Path

    @property
    def results(self) -> Path:
        """results/<study>"""
        return self.folder.resolve().parent.parent

    def weights(self, step: int | str = "{step}") -> Path:
        return self.folder / "weights" / f"step-{_digits(step, 8)}.safetensors"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def alignment_curve(self) -> Path:
        return self.folder / "alignment.csv"

    def checkpoints(self, run_hash: str) -> Path:
        """Folder of the checkpoints and of the growing metrics.csv, one for each state of settings, data and code."""
        return self.folder / "checkpoints" / run_hash

    @property
    def begun(self) -> Path:
        """Which code began the run, by the hash of its settings and data."""
        return self.folder / "checkpoints" / "begun.json"

    @property
    def growing_metrics(self) -> list[Path]:
        """metrics.csv of every folder of checkpoints that has one, the one written last at the end."""
        found = self.folder.glob("checkpoints/*/metrics.csv")
        return sorted(found, key=lambda path: path.stat().st_mtime)

    @property
    def lock(self) -> Path:
        """Held by a process that trains the run itself or decides whether to submit it."""
        return self.folder / "job" / "lock"

    @property
    def record(self) -> Path:
        """Which job has the run: written by its submitter before and after the submission."""
        return self.folder / "job" / "job.json"

    @property
    def state(self) -> Path:
        """What the job says of itself: written by its last attempt only."""
        return self.folder / "job" / "state.json"

    @property
    def logs(self) -> Path:
        """What the job printed."""
        return self.folder / "job" / "logs"


@dataclass(frozen=True)
class Layout:
    """Paths of the results of one study below `root`; an empty root gives paths relative to the results folder."""

    root: str = ""

    def _path(self, path: str) -> str:
        return f"{self.root}/{path}" if self.root else path

    @property
    def study(self) -> str:
        return self._path("study.json")

    @property
    def lock(self) -> str:
        """Held by the Snakemake that works on the study."""
        return self._path("lock")

    def log(self, name: str) -> str:
        return self._path(f"logs/{name}.log")

    # --- data ----------------------------------------------------------------------------------------------

    def image_index(self, split: str = "{split}") -> str:
        return self._path(f"data/images/{split}.index.csv")

    def image_shard(self, split: str = "{split}", shard: int | str = "{shard}") -> str:
        return self._path(f"data/images/{split}-{_digits(shard, 5)}.safetensors")

    def image_manifest(self, split: str = "{split}") -> str:
        return self._path(f"data/images/{split}.json")

    def unreadable_images(self, split: str = "{split}") -> str:
        return self._path(f"data/images/{split}.corrupt.csv")

    @property
    def autoencoder(self) -> str:
        """What the autoencoder is and where; one trained here lies in the folder of that name beside it."""
        return self._path("data/autoencoder.json")

    @property
    def autoencoder_files(self) -> list[str]:
        return [
            self._path(f"data/autoencoder/{name}") for name in ("diffusion_pytorch_model.safetensors", "config.json")
        ]

    def latent_shard(self, split: str = "{split}", shard: int | str = "{shard}") -> str:
        return self._path(f"data/latents/{split}-{_digits(shard, 5)}.safetensors")

    @property
    def latents(self) -> str:
        return self._path("data/latents/train.json")

    @property
    def encoder(self) -> str:
        return self._path("data/encoder.json")

    @property
    def encoder_weights(self) -> str:
        return self._path("data/encoder/model.safetensors")

    def feature_shard(self, shard: int | str = "{shard}") -> str:
        return self._path(f"data/features/train-{_digits(shard, 5)}.safetensors")

    @property
    def features(self) -> str:
        return self._path("data/features/train.json")

    # --- experiments ---------------------------------------------------------------------------------------

    def variance_curve(self, source: str = "{source}") -> str:
        return self._path(f"variance/{source}.csv")

    def variance_split_point(self, source: str = "{source}") -> str:
        return self._path(f"variance/{source}.split_point.csv")

    @property
    def variance_curves(self) -> str:
        return self._path("variance/curves.csv")

    @property
    def split_points(self) -> str:
        return self._path("variance/split_points.csv")

    @property
    def variance_references(self) -> str:
        return self._path("variance/references.csv")

    @property
    def toy_folder(self) -> str:
        return self._path("toy")

    def toy(self, name: str) -> str:
        """`name`: error, target_variance, gradient_variance or cost."""
        return self._path(f"toy/{name}.csv")

    @property
    def exact_flow(self) -> str:
        return self._path("exact_flow/samples.csv")

    @property
    def latent_spectrum(self) -> str:
        return self._path("exact_flow/latent_spectrum.csv")

    # --- training and sampling -----------------------------------------------------------------------------

    @property
    def runs(self) -> str:
        return self._path("runs")

    def run(self, run: str = "{run}") -> RunFiles:
        return RunFiles(Path(self.runs) / run)

    def weights(self, run: str = "{run}", step: int | str = "{step}") -> str:
        return str(self.run(run).weights(step))

    def training_metrics(self, run: str = "{run}") -> str:
        return str(self.run(run).metrics)

    def alignment_curve(self, run: str = "{run}") -> str:
        return str(self.run(run).alignment_curve)

    def gradient_variance(self, run: str = "{run}") -> str:
        return self._path(f"metrics/gradient_variance/{run}.csv")

    def sample_shard(
        self,
        run: str = "{run}",
        step: int | str = "{step}",
        sampler: str = "{sampler}",
        shard: int | str = "{shard}",
    ) -> str:
        return self._path(f"samples/{run}/step-{_digits(step, 8)}/{sampler}/shard-{_digits(shard, 5)}.safetensors")

    def samples(self, run: str = "{run}", step: int | str = "{step}", sampler: str = "{sampler}") -> str:
        """Manifest of a set of generated images."""
        return self._path(f"samples/{run}/step-{_digits(step, 8)}/{sampler}/manifest.json")

    # --- evaluation ----------------------------------------------------------------------------------------

    @property
    def classifier(self) -> str:
        """The digit classifier that makes the features of FID; its files lie in the folder of that name beside it."""
        return self._path("metrics/judge.json")

    @property
    def classifier_files(self) -> list[str]:
        return [self._path(f"metrics/judge/{name}") for name in ("config.json", "model.safetensors")]

    @property
    def reference_statistics(self) -> str:
        return self._path("metrics/reference.safetensors")

    def fidelity(self, run: str = "{run}", step: int | str = "{step}", sampler: str = "{sampler}") -> str:
        return self._path(f"metrics/fidelity/{run}/step-{_digits(step, 8)}/{sampler}.csv")

    @property
    def real_baseline(self) -> str:
        """Metrics of real images against real images: the least that a perfect generator could reach."""
        return self._path("metrics/floor.csv")

    def sweep(self, run: str = "{run}") -> str:
        return self._path(f"metrics/sweep/{run}.csv")

    def sweep_images(self, run: str = "{run}") -> str:
        return self._path(f"metrics/sweep/{run}.images.csv")

    # --- pretrained models ---------------------------------------------------------------------------------

    def tiny_model(self, family: str = "{family}") -> str:
        return self._path(f"pretrained/{family}/model/training.json")

    def prompts(self, family: str = "{family}") -> str:
        return self._path(f"pretrained/{family}/prompts.jsonl")

    def family_shard(self, family: str = "{family}", shard: int | str = "{shard}") -> str:
        return self._path(f"pretrained/{family}/samples/shard-{_digits(shard, 5)}.json")

    def family_metrics(self, family: str = "{family}") -> str:
        return self._path(f"pretrained/{family}/metrics.csv")

    def family_pairs(self, family: str = "{family}") -> str:
        return self._path(f"pretrained/{family}/pairs.csv")

    def video_comparison(self, family: str = "{family}", suffix: str = "mp4") -> str:
        """Side by side: `mp4`, and a small `gif` of it for the page."""
        return self._path(f"pretrained/{family}/comparison.{suffix}")

    @property
    def detector_accuracy(self) -> str:
        return self._path("pretrained/judge.json")

    @property
    def scheduler_errors(self) -> str:
        return self._path("pretrained/scheduler_errors.csv")

    # --- report --------------------------------------------------------------------------------------------

    def table(self, name: str = "{table}") -> str:
        return self._path(f"tables/{name}.csv")

    def figure(self, name: str = "{figure}", suffix: str = "pdf") -> str:
        return self._path(f"figures/{name}.{suffix}")

    def paper_table(self, name: str = "{table}", suffix: str = "csv") -> str:
        """In the paper's rows and columns: `suffix` csv, md, tex or html."""
        return self._path(f"paper/{name}.{suffix}")

    @property
    def claims(self) -> str:
        return self._path("claims.json")

    @property
    def report(self) -> str:
        return self._path("report.html")
