"""Where each file of a study's results lies: the one place that says it, for the rules, the report and cluster jobs.

A part left out stands as Snakemake's wildcard, so one function gives both the pattern of a rule and a file:

>>> Layout("results/digits").image_shard()
'results/digits/data/images/{split}-{shard}.safetensors'
>>> Layout("results/digits").image_shard("train", 3)
'results/digits/data/images/train-00003.safetensors'
"""

from dataclasses import dataclass


def _digits(number: int | str, width: int) -> str:
    return number if isinstance(number, str) else f"{number:0{width}d}"


@dataclass(frozen=True)
class Layout:
    """Paths of the results of one study below `root`; an empty root gives paths relative to the results folder."""

    root: str = ""

    def _path(self, path: str) -> str:
        return f"{self.root}/{path}" if self.root else path

    @property
    def study(self) -> str:
        return self._path("study.json")

    def log(self, name: str) -> str:
        return self._path(f"logs/{name}.log")

    def benchmark(self, name: str) -> str:
        return self._path(f"benchmarks/{name}.tsv")

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

    # --- training and sampling -----------------------------------------------------------------------------

    @property
    def runs(self) -> str:
        return self._path("runs")

    def weights(self, run: str = "{run}", step: int | str = "{step}") -> str:
        return self._path(f"runs/{run}/weights/step-{_digits(step, 8)}.safetensors")

    def training_metrics(self, run: str = "{run}") -> str:
        return self._path(f"runs/{run}/metrics.csv")

    def alignment_curve(self, run: str = "{run}") -> str:
        return self._path(f"runs/{run}/alignment.csv")

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

    # --- pretrained models ---------------------------------------------------------------------------------

    def tiny_model(self, family: str = "{family}") -> str:
        return self._path(f"pretrained/{family}/model/training.json")

    def prompts(self, family: str = "{family}") -> str:
        return self._path(f"pretrained/{family}/prompts.jsonl")

    def family_shard(self, family: str = "{family}", shard: int | str = "{shard}") -> str:
        return self._path(f"pretrained/{family}/samples/shard-{_digits(shard, 5)}.json")

    def family_metrics(self, family: str = "{family}") -> str:
        return self._path(f"pretrained/{family}/metrics.csv")

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

    @property
    def claims(self) -> str:
        return self._path("claims.json")

    @property
    def report(self) -> str:
        return self._path("report.html")
