"""What the text about the training runs shows."""

from typing import Any

from stablevelocity.reporting.describe import guidance_text
from stablevelocity.reporting.format import UNKNOWN, interval, number, percent, plain, plus_minus, signed, whole
from stablevelocity.reporting.names import METRICS
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.training import TABLE1, TABLE2, TABLE3, XI, guided
from stablevelocity.reporting.sections.training.data import SHOWN
from stablevelocity.reporting.statistics import t_factor
from stablevelocity.reporting.text_table import Column, TextTable, published_table, text_table
from stablevelocity.study import Study
from stablevelocity.study.methods import alignment_text, kind, target_text


def runs_text(arm: str, seeds: str) -> str:
    """ "cfm-s0, s1": the runs of a row, from "seeds 0, 1"."""
    return f"{arm}-" + ", ".join(f"s{seed}" for seed in seeds.split(" ", 1)[1].split(", "))


ARM: Column = ("Arm", "label", str)
RUNS: Column = ("Runs", "runs", str)
STEPS: Column = ("Steps", "step", whole)
FID: Column = ("FID", "fid fid_sd", plus_minus)


def view(results: Results) -> dict[str, Any]:
    study = results.study
    seeds = len(study.training.seeds)
    main = guidance_text(study.sampler(study.sampling.main))
    return {
        "factor": t_factor(seeds - 1) / seeds**0.5 if seeds > 1 else None,
        "guided": guided(study),
        "arms": _arms(study),
        "table1": _measured(results, "table1", "Table 1. With guidance"),
        "table2": _measured(results, "table2", f"Table 2. All arms, {main}"),
        "table3": _table3(results),
        "ablations": _ablations(results),
        "differences": _differences(results),
        "runs": _runs(results),
        "paper1": published_table("Table 1 of the paper", results.published(TABLE1)),
        "paper2": published_table("Table 2 of the paper", results.published(TABLE2)),
        "paper3": published_table("Table 3 of the paper", results.published(TABLE3)),
        "paper_xi": published_table("Ablation of xi in the paper", results.published(XI)),
    }


def _arms(study: Study) -> TextTable:
    rows = []
    for name, arm in study.arms.items():
        training = study.arm_training(name)
        row = [arm.label, kind(arm).method, target_text(arm), alignment_text(arm)]
        rows.append([*row, whole(training.steps), str(len(training.seeds))])
    columns = ["Arm", "Method", "Target", "Alignment", "Steps", "Seeds"]
    return TextTable("The arms", columns, rows, words=4, folded=True)


def _with_runs(table: DataFrame, *, samplers: bool = False) -> DataFrame:
    runs = [runs_text(row.arm, row.seed_list) + f"; {row.sampler}" * samplers for row in table.itertuples()]
    return table.assign(runs=runs)


def _from(title: str, name: str) -> list[Column]:
    """A difference in FID with its interval."""
    return [(title, name, signed), ("95 %", f"{name}_low {name}_high", interval)]


def _others(table: DataFrame) -> list[Column]:
    """The other metrics of a table."""
    return [(METRICS[one], one, number) for one in SHOWN if one in table and one not in ("fid", "fid_infinity")]


def _measured(results: Results, name: str, title: str) -> TextTable | None:
    table = results.table(name)
    if table is None:
        return None
    columns = [ARM, RUNS, STEPS, FID, ("95 %", "fid_low fid_high", interval)]
    columns += _from("FID – baseline", "fid_from_baseline") if "fid_from_baseline" in table else []
    columns += _others(table)
    papers = [metric for metric in SHOWN if f"published_{metric}" in table]
    columns += [(f"{METRICS[metric]} (published)", f"published_{metric}", number) for metric in papers]
    return text_table(title, _with_runs(table, samplers=table["sampler"].nunique() > 1), columns)


def _table3(results: Results) -> TextTable | None:
    table = results.table("table3")
    if "fid_from_base" not in table:
        return None
    columns = [("Base", "base", str), ARM, RUNS, STEPS, FID, *_from("FID – base", "fid_from_base"), *_others(table)]
    return text_table("Table 3. By base method", _with_runs(table), columns)


def _ablations(results: Results) -> TextTable | None:
    table = results.table("ablations")
    if table is None:
        return None
    columns = [("Setting", "setting", str), ("Value", "value", str), ARM, RUNS, STEPS, FID]
    columns += [*_from("FID – base", "fid_from_base"), ("FID (published)", "published_fid", number)]
    settings, values = table["setting"].str.rsplit(".", n=1).str[1], table["value"].map(_value)
    return text_table("Ablations of training", _with_runs(table).assign(setting=settings, value=values), columns)


def _value(setting: Any) -> str:
    """A setting as a study file has it; pandas reads None as NaN, and whole numbers beside it as fractions."""
    return "None" if setting != setting else f"{setting:g}" if isinstance(setting, float) else str(setting)


def _differences(results: Results) -> TextTable:
    table, arms = results.table("differences"), results.study.arms
    if len(table):
        table = table[(table["sampler"] == results.study.sampling.main) & (table["metric"] == "fid")]
        table = table[table["step"] == table.groupby("comparison")["step"].transform("max")].sort_values("comparison")
        labels = {name: arm.label for name, arm in arms.items()}
        table = table.assign(name=table["arm"].map(labels) + " – " + table["against"].map(labels))
    columns = [
        ("Comparison, last step", "name", str),
        ("FID difference", "difference", signed),
        ("95 % pooled", "low high", interval),
        ("95 % of the pair", "paired_low paired_high", interval),
        ("Relative", "relative", percent),
        ("Seeds", "seeds", plain),
        ("Relative (published)", "published_relative", percent),
    ]
    return text_table("Differences between arms", table, columns)


def _runs(results: Results) -> TextTable:
    """Each single number with its run, sampler and bootstrap interval."""
    table = results.table("runs")
    table["text"] = [_bounded(row.value, row.low, row.high) for row in table.itertuples()]
    key = ["run", "sampler", "step"]
    order = table[key].drop_duplicates()
    wide = order.merge(table.pivot(index=key, columns="metric", values="text").reset_index(), on=key)
    metrics = [metric for metric in SHOWN if metric in wide]
    wide[metrics] = wide[metrics].fillna(UNKNOWN)
    columns = [("Run", "run", str), ("Sampler", "sampler", str), STEPS, *((METRICS[one], one, str) for one in metrics)]
    return text_table("Every run", wide, columns, folded=True)


def _bounded(value: float, low: float, high: float) -> str:
    return number(value) if low != low else f"{number(value)} [{number(low)}, {number(high)}]"
