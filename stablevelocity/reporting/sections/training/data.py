"""Metrics of all sets of images of a study, read into one frame."""

import pandas as pd

from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.training import principal_runs
from stablevelocity.reporting.spec import LAYOUT

SHOWN = ("fid", "sfid", "is", "precision", "recall", "accuracy", "fid_infinity", "fid_heldout", "nearest_ratio")
"""Metrics in the order of the tables; those that were not computed are left out."""


def fidelity(results: Results, samplers: list[str] | None = None) -> DataFrame:
    """run, arm, seed, step, sampler, extractor, images, reference, metric, value, low, high."""
    chosen = [one for one in results.study.sample_sets() if samplers is None or one[2] in samplers]
    return pd.concat([results.csv(LAYOUT.fidelity(*one)) for one in chosen], ignore_index=True)


def alignment_curves(results: Results) -> DataFrame:
    """run, arm, seed, then the columns of alignment.csv: each aligned run of the principal arms at its last step."""
    frames = []
    for run in principal_runs(results.study):
        if run.alignment:
            frame = results.csv(LAYOUT.alignment_curve(run.name)).assign(run=run.name, arm=run.arm, seed=run.seed)
            frames.append(frame[frame["step"] == frame["step"].max()])
    frame: DataFrame = pd.concat(frames, ignore_index=True)
    return frame[["run", "arm", "seed", *frame.columns.difference(["run", "arm", "seed"], sort=False)]]


def by_seed(frame: DataFrame, metric: str, step: int, sampler: str) -> DataFrame:
    """Arms (rows) by seeds (columns); NaN where there is no such run."""
    part = frame[(frame["metric"] == metric) & (frame["step"] == step) & (frame["sampler"] == sampler)]
    return part.pivot_table(index="arm", columns="seed", values="value")


def common_step(frame: DataFrame) -> int:
    """The step at which most arms have samples; the last one of several."""
    arms = frame.groupby("step")["arm"].nunique()
    return int(arms[arms == arms.max()].index.max())


def metrics_of(frame: DataFrame) -> list[str]:
    return [metric for metric in SHOWN if metric in set(frame["metric"])]
