"""Arms x seeds: tables 1, 2 and 3, the differences between arms, and every single number."""

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from stablevelocity.reporting.describe import decoder_text, seeds_text
from stablevelocity.reporting.sections.training import principal_runs, published
from stablevelocity.reporting.sections.training.data import by_seed, fidelity, metric_columns, metrics_of
from stablevelocity.reporting.source import Frame, Source
from stablevelocity.reporting.statistics import difference, over_seeds
from stablevelocity.study.methods import ABLATED, ablations, baseline, comparisons, flat_settings, kind, same_model

Published = Callable[[Source, str, int, str], dict[str, float]]


def table1(source: Source) -> Frame:
    """Samplers with guidance: every arm, every kept step."""
    samplers = source.study.sampling.samplers
    guided = [name for name, sampler in samplers.items() if sampler.guidance > 1]
    frame = fidelity(source, guided)
    return pd.DataFrame(_rows(source, frame, published.with_guidance))


def table2(source: Source) -> Frame:
    """The main sampler: every arm, every kept step."""
    frame = fidelity(source, [source.study.sampling.main])
    return pd.DataFrame(_rows(source, frame, published.without_guidance))


def table3(source: Source) -> Frame:
    """By base method (SiT, REPA, iREPA, REG): the base, its regimes, and it with StableVM; last step, main sampler.

    `fid_from_base` is the difference to the first row of the same base, with the interval of `difference`.
    """
    frame = fidelity(source, [source.study.sampling.main])
    last = frame.groupby("arm")["step"].transform("max")
    rows = _rows(source, frame[frame["step"] == last], published.without_guidance)
    grouped = []
    for base in ("SiT", "REPA", "iREPA", "REG"):
        members = [row for row in rows if kind(source.study.arms[row["arm"]]).base == base]
        # The base itself first, then as the study lists them.
        members.sort(key=lambda row: row["method"] not in (base, "SiT (CFM)"))
        for row in members:
            first = next(one for one in members if one["arm"] in same_model(source.study, row["arm"]))
            change = {}
            if row is not first:
                change = _change(source, frame, row, first["arm"], "fid_from_base")
            grouped.append({"base": base, **row, **change})
    return pd.DataFrame(grouped)


def ablated(source: Source) -> Frame:
    """Arms that differ from a base in one setting, main sampler, at the steps that both have; the base first.

    `fid_from_base` is the difference to it. `published_fid` is known for xi, and for a base with the paper's settings.
    """
    study, main = source.study, source.study.sampling.main
    frame = fidelity(source, [main])
    rows = {(row["arm"], row["step"]): row for row in _rows(source, frame, published.without_guidance)}
    found: dict[tuple, dict[str, Any]] = {}
    for setting, one, base in ablations(study):
        for step in [step for arm, step in rows if arm == one and (base, step) in rows]:
            for arm in (base, one):
                row = {"setting": setting, "value": flat_settings(study, arm)[setting], "base": base, **rows[arm, step]}
                if arm != base:
                    row |= _change(source, frame, row, base, "fid_from_base")
                    if setting == "alignment.xi":
                        row |= published.ablation_of_xi(source, arm, base, step, main)
                found[setting, arm, step] = row
    ordered = sorted(found.values(), key=lambda row: (ABLATED.index(row["setting"]), row["step"]))
    return pd.DataFrame(ordered) if ordered else pd.DataFrame(columns=["setting", "value", "arm", "step"])


def _rows(source: Source, frame: Frame, same: Published) -> list[dict]:
    """One row per arm, step and sampler: each metric's mean, standard deviation and t-interval over seeds."""
    study = source.study
    plain = baseline(study)
    metrics = metrics_of(frame)
    order = {arm: place for place, arm in enumerate(study.arms)}
    groups = sorted(frame.groupby(["arm", "step", "sampler"]), key=lambda item: (order[item[0][0]], *item[0][1:]))
    rows = []
    for (arm, step, sampler), part in groups:
        row = {
            "arm": arm,
            "label": study.arms[arm].label,
            "method": kind(study.arms[arm]).method,
            "step": step,
            "sampler": sampler,
            "seeds": part["seed"].nunique(),
            "seed_list": seeds_text(part["seed"]),
            "images": int(part["images"].iloc[0]),
            "extractor": part["extractor"].iloc[0],
            "reference": part["reference"].iloc[0],
            "decoder": decoder_text(study),
        }
        for metric in metrics:
            values = part.loc[part["metric"] == metric, "value"]
            if len(values):
                estimate = over_seeds(values.to_numpy())
                row |= dict(zip(metric_columns(metric), estimate[:4], strict=True))
        if plain and arm != plain and plain in same_model(study, arm):
            row |= _change(source, frame, row, plain, "fid_from_baseline")
        rows.append({**row, **same(source, arm, step, sampler)})
    return rows


def _change(source: Source, frame: Frame, row: dict[str, Any], against: str, name: str) -> dict[str, float]:
    """FID of a row minus that of another arm at the same step, with its interval."""
    arm = row["arm"]
    values = by_seed(frame[frame["arm"].isin(same_model(source.study, arm))], "fid", row["step"], row["sampler"])
    if arm not in values.index or against not in values.index:
        return {}
    found = difference(values, arm, against)
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high} if found else {}


def differences(source: Source) -> Frame:
    """Each comparison of the paper that the study has arms for, by metric, step and sampler.

    `low`, `high` pool the spread of all arms, `paired_low`, `paired_high` use the pair alone (see `statistics`).
    `relative` is the change as a share of the arm compared with.
    """
    frame = fidelity(source)
    rows = []
    for comparison, arm, against in comparisons(source.study):
        paper = published.pair(source, comparison)
        alike = frame[frame["arm"].isin(same_model(source.study, arm))]
        for (step, sampler), part in alike.groupby(["step", "sampler"]):
            for metric in metrics_of(part):
                values = by_seed(part, metric, int(step), str(sampler))
                if arm not in values.index or against not in values.index:
                    continue
                found = difference(values, arm, against)
                if found is None:
                    continue
                base = float(values.loc[against].mean())
                row = {
                    "comparison": comparison,
                    "arm": arm,
                    "against": against,
                    "step": step,
                    "sampler": sampler,
                    "metric": metric,
                    "seeds": found.count,
                    "seed_list": seeds_text(values.loc[[arm, against]].dropna(axis="columns").columns),
                    "images": int(part["images"].iloc[0]),
                    "difference": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "freedom": found.freedom,
                    "paired_low": found.paired_low,
                    "paired_high": found.paired_high,
                    "relative": found.mean / base if base else math.nan,
                    "published_relative": paper.relative if paper and metric == "fid" else math.nan,
                    "published": paper.text if paper and metric == "fid" else "",
                }
                rows.append(row)
    columns = ["comparison", "arm", "against", "step", "sampler", "metric"]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def runs(source: Source) -> Frame:
    """Every number as it was measured: one row per run, step, sampler and metric, with its bootstrap interval."""
    return fidelity(source)


def alignment(source: Source) -> Frame:
    """Alignment loss over t at the last step of each aligned run of the principal arms, with the samples' quantiles."""
    frames = []
    for run in principal_runs(source.study):
        if run.alignment:
            frame = source.csv(f"runs/{run.name}/alignment.csv")
            frame = frame[frame["step"] == frame["step"].max()]
            frames.append(frame.assign(run=run.name, arm=run.arm, seed=run.seed))
    return pd.concat(frames, ignore_index=True)[["run", "arm", "seed", "step", "t", "mean", "q15", "q85"]]
