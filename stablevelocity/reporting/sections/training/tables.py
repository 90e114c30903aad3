"""Arms x seeds: tables 1, 2 and 3, the differences between arms, and every single number."""

import math
from dataclasses import replace
from typing import Any

import pandas as pd

from stablevelocity.reporting.describe import decoder_text
from stablevelocity.reporting.results import DataFrame, Results, Series
from stablevelocity.reporting.sections.training import guided, published
from stablevelocity.reporting.sections.training.data import alignment_curves, by_seed, fidelity, metrics_of
from stablevelocity.reporting.spec import LAYOUT
from stablevelocity.reporting.statistics import difference, over_seeds, seed_columns
from stablevelocity.study.methods import ABLATED, baseline, comparisons, flat_settings, kind, same_model
from stablevelocity.study.methods import ablations as ablated_arms


def table1(results: Results) -> DataFrame:
    """Samplers with guidance: every arm, every kept step."""
    return pd.DataFrame(_rows(results, fidelity(results, guided(results.study))))


def table2(results: Results) -> DataFrame:
    """The main sampler: every arm, every kept step."""
    return pd.DataFrame(_rows(results, fidelity(results, [results.study.sampling.main])))


def table3(results: Results) -> DataFrame:
    """By base method (SiT, REPA, iREPA, REG): the base, its regimes, and it with StableVM; last step, main sampler.

    `fid_from_base` is the difference to the first row of the same base, with the interval of `difference`.
    """
    study = results.study
    frame = fidelity(results, [study.sampling.main])
    last = frame["step"] == frame.groupby("arm")["step"].transform("max")
    rows = _rows(results, frame[last])
    grouped = []
    for base in ("SiT", "REPA", "iREPA", "REG"):
        members = [row for row in rows if kind(study.arms[row["arm"]]).base == base]
        # The base itself first, then as the study lists them.
        members.sort(key=lambda row: row["method"] not in (base, "SiT (CFM)"))
        for row in members:
            first = next(one for one in members if one["arm"] in same_model(study, row["arm"]))
            change = {} if row is first else _change(results, frame, row, first["arm"], "fid_from_base")
            grouped.append({"base": base, **row, **change})
    return pd.DataFrame(grouped)


def ablations(results: Results) -> DataFrame:
    """Arms that differ from a base in one setting, main sampler, at the steps that both have; the base first.

    `fid_from_base` is the difference to it.
    """
    study = results.study
    frame = fidelity(results, [study.sampling.main])
    rows = {(row["arm"], row["step"]): row for row in _rows(results, frame)}
    table: dict[tuple, dict[str, Any]] = {}
    for setting, one, base in ablated_arms(study):
        for step in [step for arm, step in rows if arm == one and (base, step) in rows]:
            for arm in (base, one):
                row = {"setting": setting, "value": flat_settings(study, arm)[setting], "base": base, **rows[arm, step]}
                if arm != base:
                    row |= _change(results, frame, row, base, "fid_from_base")
                table[setting, arm, step] = row
    ordered = sorted(table.values(), key=lambda row: (ABLATED.index(row["setting"]), row["step"]))
    return pd.DataFrame(ordered) if ordered else pd.DataFrame(columns=["setting", "value", "arm", "step"])


def _rows(results: Results, frame: DataFrame) -> list[dict[str, Any]]:
    """One row per arm, step and sampler: each metric's mean, standard deviation and t-interval over seeds."""
    study, plain = results.study, baseline(results.study)
    order = list(study.arms)
    groups = {key: part for key, part in frame.groupby(["arm", "step", "sampler"])}
    rows = []
    for arm, step, sampler in sorted(groups, key=lambda key: (order.index(key[0]), *key[1:])):
        part = groups[arm, step, sampler]
        first = part.iloc[0]
        row = {"arm": arm, "label": study.arms[arm].label, "method": kind(study.arms[arm]).method}
        row |= {"step": step, "sampler": sampler, "seeds": part["seed"].nunique(), "seed_list": _seeds(part["seed"])}
        row |= {name: first[name] for name in ("images", "extractor", "reference")} | {"decoder": decoder_text(study)}
        for metric in metrics_of(part):
            row |= seed_columns(metric, part.loc[part["metric"] == metric, "value"])
        if plain and arm != plain and plain in same_model(study, arm):
            row |= _change(results, frame, row, plain, "fid_from_baseline")
        rows.append(row)
    return rows


def _seeds(seeds: Series) -> str:
    different = sorted({int(seed) for seed in seeds})
    return f"seed{'s' if len(different) > 1 else ''} {', '.join(map(str, different))}"


def _change(results: Results, frame: DataFrame, row: dict[str, Any], against: str, name: str) -> dict[str, float]:
    """FID of a row minus that of another arm at the same step, with its interval."""
    alike = frame[frame["arm"].isin(same_model(results.study, row["arm"]))]
    change = difference(by_seed(alike, "fid", row["step"], row["sampler"]), row["arm"], against)
    return change.pooled.columns(name) if change else {}


def differences(results: Results) -> DataFrame:
    """Each comparison of the paper that the study has arms for, by metric, step and sampler.

    `low`, `high` pool the spread of all arms, `paired_low`, `paired_high` use the pair alone (see `statistics`).
    `relative` is the change as a share of the arm compared with.
    """
    frame = fidelity(results)
    rows = []
    for comparison, arm, against in comparisons(results.study):
        paper = published.pair(results, comparison)
        alike = frame[frame["arm"].isin(same_model(results.study, arm))]
        for (step, sampler), part in alike.groupby(["step", "sampler"]):
            for metric in metrics_of(part):
                values = by_seed(part, metric, step, sampler)
                change = difference(values, arm, against)
                if change is None:
                    continue
                pooled, base = change.pooled, values.loc[against].mean()
                seeds = _seeds(values.loc[[arm, against]].dropna(axis="columns").columns)
                known = paper if metric == "fid" else None
                row = {"comparison": comparison, "arm": arm, "against": against, "step": step, "sampler": sampler}
                row |= {"metric": metric, "seeds": change.count, "seed_list": seeds, "images": part["images"].iloc[0]}
                row |= {"difference": pooled.mean, "standard_error": pooled.error, "freedom": pooled.freedom}
                row |= dict(zip(("low", "high"), pooled.bounds(), strict=True))
                row |= dict(zip(("paired_low", "paired_high"), change.paired.bounds(), strict=True))
                row |= {"relative": pooled.mean / base if base else math.nan}
                row |= {"published_relative": known.relative if known else math.nan}
                rows.append(row | {"published": known.text if known else ""})
    columns = ["comparison", "arm", "against", "step", "sampler", "metric"]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def runs(results: Results) -> DataFrame:
    """Every number as it was measured: one row per run, step, sampler and metric, with its bootstrap interval."""
    return fidelity(results)


def alignment(results: Results) -> DataFrame:
    """Alignment loss over t at the last step of each aligned run of the principal arms, with the samples' quantiles."""
    return alignment_curves(results)


def gradient_variance(results: Results) -> DataFrame:
    """Trace of the covariance of a batch's gradient by run and step with either target, and their ratio.

    The interval of the ratio is linearised over the batches, which both targets share. `mean_square_cfm` is the
    squared norm of the mean gradient, without the noise of the batches.
    """
    rows = []
    for name in results.study.gradient_runs():
        frame = results.csv(LAYOUT.gradient_variance(name))
        for step, part in frame.groupby("step"):
            deviation = part.pivot(index="batch", columns="objective", values="squared_deviation")
            cfm, stablevm = deviation["cfm"].mean(), deviation["stablevm"].mean()
            ratio = over_seeds((deviation["stablevm"] - stablevm / cfm * deviation["cfm"]) / cfm)
            ratio = replace(ratio, mean=stablevm / cfm)
            norm = part.loc[part["objective"] == "cfm", "squared_norm"].mean() - cfm
            row = {"run": name, "step": step, "batches": len(deviation), "variance_cfm": cfm}
            row |= {"variance_stablevm": stablevm, "mean_square_cfm": norm}
            rows.append(row | ratio.columns("ratio") | {"ratio_error": ratio.error})
    return pd.DataFrame(rows)
