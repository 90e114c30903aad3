"""Intervals over seeds. One rule for all tables, stated where the tables stand.

A seed is one repetition of the whole training. The interval of a mean over n seeds is Student's t with n - 1
degrees of freedom: honest, and with two seeds very wide (the factor is 12.7). Differences between two arms are paired
by seed, since the arms of a seed see the same data order and noise.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from stablevelocity.reporting.results import DataFrame

NAN = float("nan")


class Estimate(NamedTuple):
    """A mean over seeds: `sd` is the standard deviation (n - 1), `low`..`high` the 95 % t-interval.

    With one seed these three are NaN: nothing is known about the spread.
    """

    mean: float
    sd: float
    low: float
    high: float
    count: int


class Difference(NamedTuple):
    """Mean difference between two arms over their common seeds, with two 95 % intervals.

    `low`..`high` takes the spread from all arms (see `difference`), `paired_low`..`paired_high` from the pair alone.
    """

    mean: float
    low: float
    high: float
    paired_low: float
    paired_high: float
    count: int
    freedom: int


def t_factor(freedom: int) -> float:
    """97.5 % quantile of Student's t: 12.7 for one degree of freedom, 1.96 for very many."""
    return float(stdtrit(freedom, 0.975))


def over_seeds(values: Sequence[float] | np.ndarray) -> Estimate:
    """Mean, standard deviation and 95 % t-interval of values that differ by their seed only."""
    array = np.asarray(values, dtype=np.float64)
    n, mean = len(array), float(array.mean())
    if n < 2:
        return Estimate(mean, NAN, NAN, NAN, n)
    sd = float(array.std(ddof=1))
    half = t_factor(n - 1) * sd / math.sqrt(n)
    return Estimate(mean, sd, mean - half, mean + half, n)


def summary(frame: DataFrame, by: list[str], value: str, name: str) -> DataFrame:
    """`over_seeds` of the column `value` in each group: columns `by`, `name`, `name`_sd, `name`_low, `name`_high."""
    columns = [name, *(f"{name}_{bound}" for bound in ("sd", "low", "high"))]
    groups = {key: over_seeds(values)[:4] for key, values in frame.groupby(by, sort=False)[value]}
    index = pd.MultiIndex.from_tuples(groups, names=by)
    return pd.DataFrame(list(groups.values()), index=index, columns=columns).reset_index()


def difference(values: DataFrame, arm: str, against: str) -> Difference | None:
    """arm - against, from a table of arms (rows) by seeds (columns); NaN where a run is missing.

    `paired_low`..`paired_high`: t-interval of the per-seed differences, n - 1 degrees of freedom.
    `low`..`high`: the residual of the two-way layout arm + seed over all arms that have these seeds (a randomised block
    design), (arms - 1)(n - 1) degrees of freedom. It assumes that seeds scatter alike in all arms, and is
    what makes two or three seeds say something. With two arms both are the same.

    None when one of the arms is not in the table, or the two have no seed in common.
    """
    if arm not in values.index or against not in values.index:
        return None
    both = values.loc[[arm, against]].dropna(axis="columns")
    n = both.shape[1]
    if not n:
        return None
    own = over_seeds((both.loc[arm] - both.loc[against]).to_numpy())
    if n < 2:
        return Difference(own.mean, NAN, NAN, NAN, NAN, n, 0)
    block = values[both.columns].dropna(axis="index").to_numpy(dtype=np.float64)
    residual = block - block.mean(axis=1, keepdims=True) - block.mean(axis=0, keepdims=True) + block.mean()
    freedom = (len(block) - 1) * (n - 1)
    half = t_factor(freedom) * math.sqrt(2 * float((residual**2).sum()) / freedom / n)
    return Difference(own.mean, own.mean - half, own.mean + half, own.low, own.high, n, freedom)
