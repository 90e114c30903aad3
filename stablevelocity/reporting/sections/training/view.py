"""Facts for the text about the training runs."""

from typing import Any

import pandas as pd

from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.training import guided
from stablevelocity.reporting.statistics import t_factor
from stablevelocity.study import Study
from stablevelocity.study.methods import alignment_text, kind, target_text


def view(results: Results) -> dict[str, Any]:
    seeds = len(results.study.training.seeds)
    return {
        "factor": t_factor(seeds - 1) / seeds**0.5 if seeds > 1 else None,
        "guided": guided(results.study),
        "arms": _arms(results.study),
        "differences": _differences(results),
        "runs": _runs(results.table("runs")),
        "changed": "fid_from_base" in results.table("table3"),
    }


def _arms(study: Study) -> DataFrame:
    rows = []
    for name, arm in study.arms.items():
        training = study.arm_training(name)
        row = {"label": arm.label, "method": kind(arm).method, "target": target_text(arm)}
        row |= {"alignment": alignment_text(arm), "steps": training.steps, "seeds": len(training.seeds)}
        rows.append(row)
    return pd.DataFrame(rows)


def _differences(results: Results) -> DataFrame:
    """FID at the last step of each comparison: of the main sampler, or else of the first that both arms have."""
    table, main = results.table("differences"), results.study.sampling.main
    table = table[table["metric"] == "fid"]
    elsewhere = ~table["comparison"].isin(table.loc[table["sampler"] == main, "comparison"])
    first = table["sampler"] == table.groupby("comparison")["sampler"].transform("first")
    table = table[(table["sampler"] == main) | (elsewhere & first)]
    table = table[table["step"] == table.groupby("comparison")["step"].transform("max")].sort_values("comparison")
    labels = {name: arm.label for name, arm in results.study.arms.items()}
    return table.assign(name=table["arm"].map(labels) + " – " + table["against"].map(labels))


def _runs(table: DataFrame) -> DataFrame:
    """Each single number with its bootstrap interval, a row per run, sampler and step."""
    key = ["run", "sampler", "step"]
    wide = table.pivot(index=key, columns="metric", values=["value", "low", "high"])
    wide.columns = [metric if part == "value" else f"{metric}_{part}" for part, metric in wide.columns]
    return table[key].drop_duplicates().merge(wide.reset_index(), on=key)
