"""Effects with their uncertainty. One rule for all tables and claims, stated where they stand.

A seed is one repetition of the whole training: a mean over n seeds has Student's t with n - 1 degrees of freedom,
honest, and with two seeds very wide (the factor is 12.7). Images of the same noise, or of the same prompt, are no
repetitions of each other: they form a cluster, and the bootstrap draws whole clusters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from stablevelocity.reporting.results import DataFrame, Series

NAN = float("nan")
POWER = 0.8
RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error, NaN where one value alone gives none.

    The uncertainty is Student's t of `freedom` degrees (infinite: normal), or that of `resampled` means.
    """

    mean: float
    error: float = NAN
    freedom: float = math.inf
    resampled: np.ndarray | None = field(default=None, compare=False, repr=False)

    def bounds(self, level: float = 0.95) -> tuple[float, float]:
        """The interval that holds the true mean in a share `level` of repetitions."""
        if math.isnan(self.error):
            return NAN, NAN
        if self.resampled is not None:
            low, high = np.quantile(self.resampled, [(1 - level) / 2, (1 + level) / 2])
            return float(low), float(high)
        half = t_factor(self.freedom, level) * self.error
        return self.mean - half, self.mean + half

    def p_below(self, bound: float) -> float:
        """One-sided p-value for a true mean below `bound`."""
        if math.isnan(self.error):
            return NAN
        if self.resampled is not None:
            return float((1 + (self.resampled >= bound).sum()) / (1 + len(self.resampled)))
        if self.error == 0:
            return 0.0 if self.mean < bound else 1.0
        return float(stdtr(self.freedom, (self.mean - bound) / self.error))

    def p_above(self, bound: float) -> float:
        """One-sided p-value for a true mean above `bound`."""
        mirrored = None if self.resampled is None else -self.resampled
        return Estimate(-self.mean, self.error, self.freedom, mirrored).p_below(-bound)

    @property
    def detectable(self) -> float:
        """The true distance from the bound that a two-sided test at 5 % would find with a probability of 80 %."""
        return (t_factor(self.freedom) + float(stdtrit(self.freedom, POWER))) * self.error

    def columns(self, name: str) -> dict[str, float]:
        """As columns of a table: `name`, `name`_low, `name`_high."""
        low, high = self.bounds()
        return {name: self.mean, f"{name}_low": low, f"{name}_high": high}


def t_factor(freedom: float, level: float = 0.95) -> float:
    """Half width of an interval in standard errors: 12.7 for one degree of freedom, 1.96 for very many."""
    return float(stdtrit(freedom, (1 + level) / 2))


def over_seeds(values: Sequence[float] | np.ndarray | Series) -> Estimate:
    """Mean of values that differ by their seed only."""
    array = np.asarray(values, dtype=np.float64)
    n = len(array)
    error = float(array.std(ddof=1)) / math.sqrt(n) if n > 1 else NAN
    return Estimate(float(array.mean()), error, max(n - 1, 1))


def over_clusters(values: Series, clusters: Series) -> Estimate:
    """Mean over clusters of each one's mean: `RESAMPLES` bootstrap draws of whole clusters, percentiles."""
    means = values.groupby(clusters.to_numpy()).mean().to_numpy(np.float64)
    if len(means) < 2:
        return Estimate(float(means.mean()))
    rng, parts = np.random.default_rng(0), []
    for _ in range(0, RESAMPLES, 500):
        parts.append(means[rng.integers(len(means), size=(500, len(means)))].mean(1))
    resampled = np.concatenate(parts)
    return Estimate(float(means.mean()), float(resampled.std(ddof=1)), resampled=resampled)


def seed_columns(name: str, values: Sequence[float] | np.ndarray | Series) -> dict[str, float]:
    """`over_seeds` as columns of a table: `name`, `name`_sd (over seeds), `name`_low, `name`_high."""
    estimate = over_seeds(values)
    mean, low, high = estimate.columns(name).items()
    return dict([mean, (f"{name}_sd", estimate.error * math.sqrt(len(values))), low, high])


def summary(frame: DataFrame, by: list[str], value: str, name: str) -> DataFrame:
    """`seed_columns` of the column `value` in each group, after the columns `by`."""
    groups = {key: seed_columns(name, values) for key, values in frame.groupby(by, sort=False)[value]}
    index = pd.MultiIndex.from_tuples(groups, names=by)
    return pd.DataFrame(list(groups.values()), index=index).reset_index()


class Difference(NamedTuple):
    """Mean difference between two arms over their common seeds, `count` of them.

    `pooled` takes the spread from all arms, `paired` from the pair alone (see `difference`).
    """

    pooled: Estimate
    paired: Estimate
    count: int


def difference(values: DataFrame, arm: str, against: str) -> Difference | None:
    """arm - against, from a table of arms (rows) by seeds (columns); NaN where a run is missing.

    `paired`: the per-seed differences, n - 1 degrees of freedom. `pooled`: the residual of the two-way layout
    arm + seed over all arms that have these seeds (a randomised block design), (arms - 1)(n - 1) degrees of freedom. It
    assumes that seeds scatter alike in all arms, and is what makes two or three seeds say something. With two arms
    both are the same.

    None when one of the arms is not in the table, or the two have no seed in common.
    """
    if arm not in values.index or against not in values.index:
        return None
    both = values.loc[[arm, against]].dropna(axis="columns")
    n = both.shape[1]
    if not n:
        return None
    paired = over_seeds(both.loc[arm] - both.loc[against])
    if n < 2:
        return Difference(paired, paired, n)
    block = values[both.columns].dropna(axis="index").to_numpy(dtype=np.float64)
    residual = block - block.mean(axis=1, keepdims=True) - block.mean(axis=0, keepdims=True) + block.mean()
    freedom = (len(block) - 1) * (n - 1)
    error = math.sqrt(2 * float((residual**2).sum()) / freedom / n)
    return Difference(Estimate(paired.mean, error, freedom), paired, n)
