"""Metrics of all image sets of a study, read into one frame."""

import pandas as pd

from stablevelocity.reporting.sections.training import FLOOR, fidelity_file
from stablevelocity.reporting.source import Frame, Source

SHOWN = ("fid", "sfid", "is", "precision", "recall", "accuracy", "fid_infinity")
"""Metrics in the order of the tables; those that were not computed are left out."""


def fidelity(source: Source, samplers: list[str] | None = None) -> Frame:
    """run, arm, seed, step, sampler, extractor, images, reference, metric, value, low, high."""
    chosen = [one for one in source.study.sample_sets() if samplers is None or one[2] in samplers]
    return pd.concat([source.csv(fidelity_file(*one)) for one in chosen], ignore_index=True)


def floor(source: Source) -> Frame:
    """Metrics of real held-out images against the reference, by metric."""
    return source.csv(FLOOR).set_index("metric")


def by_seed(frame: Frame, metric: str, step: int, sampler: str) -> Frame:
    """Arms (rows) by seeds (columns); NaN where there is no such run."""
    part = frame[(frame["metric"] == metric) & (frame["step"] == step) & (frame["sampler"] == sampler)]
    return part.pivot_table(index="arm", columns="seed", values="value")


def common_step(frame: Frame) -> int:
    """The step at which most arms have samples; the last one of several."""
    arms = frame.groupby("step")["arm"].nunique()
    return int(arms[arms == arms.max()].index.max())


def metrics_of(frame: Frame) -> list[str]:
    present = set(frame["metric"])
    return [metric for metric in SHOWN if metric in present]


def metric_columns(metric: str) -> tuple[str, str, str, str]:
    """Names of a metric's mean over seeds, standard deviation and 95 % interval in a table."""
    return metric, f"{metric}_sd", f"{metric}_low", f"{metric}_high"
