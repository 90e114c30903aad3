"""The variance curves of a study, as tables (docs/paper.md#variance, figure 1)."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from stablevelocity.data.latents import Latents
from stablevelocity.data.shards import ShardSet, random_rows
from stablevelocity.gmm import GaussianMixture, paper_mixture
from stablevelocity.progress import Progress
from stablevelocity.study.experiment_settings import Variance
from stablevelocity.variance import VarianceCurve, exact_variance_curve, split_point, variance_curve


def _tables(source: str, curves: dict[str, VarianceCurve]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(curves, split points) by distribution; `samples` counts the noised samples."""
    tables, splits = [], []
    for law, curve in curves.items():
        tables.append(curve.table().assign(source=source, law=law, samples=curve.deviations.shape[1]))
        splits.append({"source": source, "dimension": curve.dimension, "law": law, **split_point(curve)._asdict()})
    return pd.concat(tables), pd.DataFrame(splits)


def gmm_tables(settings: Variance, dimension: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves of the paper's mixture by the empirical and by the exact distribution, and the split point of each."""
    mixture = paper_mixture(dimension, settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    samples = mixture.sample(settings.gmm_samples, generator).float()
    times = torch.linspace(0.01, 0.99, settings.gmm_times, dtype=torch.float64)
    progress = Progress(f"variance gmm-{dimension}", settings.gmm_times * len(samples), "samples")
    empirical = variance_curve(samples, times=times, generator=generator, progress=_updates(progress))
    exact = exact_variance_curve(mixture, times=times, queries=settings.exact_samples, generator=generator)
    return _tables(f"gmm-{dimension}", {"empirical": empirical, "exact": exact})


def data_tables(settings: Variance, source: str, manifest: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves and split points of the train split's pixels in [-1, 1] or scaled latents, by their distribution.

    `empirical`: the images, or the posterior means, as points. `noise`: as many points of a Gaussian with the same
    covariance; whatever this curve shows too is no property of the data. `exact`: latents as training draws them, a
    mixture of one Gaussian per image.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    dataset = ShardSet(manifest, "images") if source == "pixels" else Latents(manifest)
    rows = random_rows(len(dataset), settings.data_samples, settings.seed)
    mixture = None
    if isinstance(dataset, ShardSet):
        samples = torch.from_numpy(dataset.rows("images", rows)).float().flatten(1) / 127.5 - 1.0
    else:
        samples = dataset.means(rows).flatten(1)
        variances = dataset.deviations(rows).flatten(1).double().square().clamp_min(1e-12)
        mixture = GaussianMixture(torch.full((len(rows),), 1 / len(rows)), samples, variances)
    times = torch.linspace(0.01, 0.99, settings.data_times, dtype=torch.float64)
    progress = Progress(f"variance {source}", 2 * settings.data_times * len(samples), "samples")
    curves = {"empirical": variance_curve(samples, times=times, generator=generator, progress=_updates(progress))}
    noise = gaussian_like(samples, generator)
    curves["noise"] = variance_curve(noise, times=times, generator=generator, progress=_updates(progress))
    if mixture is not None:
        queries = settings.exact_samples
        curves["exact"] = exact_variance_curve(mixture, times=times, queries=queries, generator=generator)
    return _tables(source, curves)


def gaussian_like(samples: Float[Tensor, "count d"], generator: torch.Generator) -> Float[Tensor, "count d"]:
    """As many draws of the Gaussian with the samples' mean and covariance."""
    values, vectors = torch.linalg.eigh(samples.T.cov().double())
    normal = torch.randn(samples.shape, generator=generator)
    return samples.mean(0) + normal @ (vectors * values.clamp_min(0).sqrt()).float().T


def reference_table(settings: Variance, dimension: int = 100) -> pd.DataFrame:
    """V of the `dimension`-dimensional mixture by empirical distributions of growing size M, and exactly."""
    mixture = paper_mixture(dimension, settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    times = torch.linspace(0.1, 0.9, 17, dtype=torch.float64)
    progress = Progress("variance by references", len(settings.reference_counts), "sizes")
    curves = []
    for count in settings.reference_counts:
        samples = mixture.sample(count, generator).float()
        curves.append(variance_curve(samples, times=times, queries=settings.exact_samples, generator=generator))
        progress.update()
    curves.append(exact_variance_curve(mixture, times=times, queries=settings.exact_samples, generator=generator))
    tables = [curve.table().assign(law="empirical" if curve.references else "exact") for curve in curves]
    table = pd.concat(tables).assign(source=f"gmm-{dimension}")
    return table.replace({"references": {0: pd.NA}})


def _updates(progress: Progress) -> Callable[[int, int], None]:
    """A curve's count is added to what the curves before it have done."""
    before = progress.done
    return lambda done, total: progress.update(before + done - progress.done)
