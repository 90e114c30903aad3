"""Which rows of a study's tables are measured for which of the paper's."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stablevelocity.files import atomic_write
from stablevelocity.reporting import registry
from stablevelocity.reporting.format import sampler
from stablevelocity.reporting.names import METRICS, SIMILARITY
from stablevelocity.reporting.paper import Columns, Gap, Row, compose
from stablevelocity.reporting.paper_formats import FORMATS
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections import pretrained
from stablevelocity.reporting.sections.training import TABLE1, TABLE2, TABLE3, XI, published
from stablevelocity.reporting.sections.training.data import by_seed
from stablevelocity.reporting.spec import LAYOUT
from stablevelocity.reporting.statistics import difference, t_factor
from stablevelocity.study import Study
from stablevelocity.study.methods import ablations, kind

Measured = Callable[[Results], tuple[list[Row], Gap]]
FIDELITY = {metric: METRICS[metric] for metric in published.METRICS}
MODEL, STEPS, METHOD = {"model": "Model"}, {"iterations": "Iterations"}, {"method": "Method"}
PIPELINE = {**MODEL, "solver": "Solver", "total_steps": "Steps"}
BELOW, XI_TITLE = {"low_regime_steps": "Below ξ"}, {"xi": "ξ"}
CONSISTENCY = "t2v_compbench_consistency"
MODELS = {"sd35": "SD3.5-Large", "flux": "Flux-dev", "qwen-image": "Qwen-Image", "wan22": "Wan2.2"}


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper: the `file` of config/published with its rows, and `measured`, this study's."""

    title: str
    file: str
    columns: Columns
    measured: Measured

    def make(self, results: Results) -> DataFrame:
        papers = results.published(self.file).rename(columns={"geneval_overall": "score", CONSISTENCY: "score"})
        if "setting" in self.columns.keys:
            papers = papers.assign(setting="xi", value=papers["xi"])
        return compose(self.columns, papers.to_dict("records"), *self.measured(results))


def _trained(results: Results, name: str, named: Callable[[Study, Row], Row]) -> tuple[list[Row], Gap]:
    """Rows of a table of training; `named` gives what the paper's columns need, and what is `apart` from the paper."""
    study, runs, rows = results.study, results.table("runs"), []
    ablated = {arm for _, arm, _ in ablations(study)} if name != "ablations" else set()
    for row in results.table(name).to_dict("records"):
        if row["arm"] in ablated:
            continue
        model = study.arm_training(row["arm"]).model
        network = model.name or f"SiT, depth {model.depth}, width {model.width}"
        where = [str(row[key]) for key in ("setting", "arm", "step", "sampler") if key in row]
        row |= {"model": network, "iterations": row["step"], "source": f"{name}: {', '.join(where)}"}
        row |= {"group": (network, *where[:-3], *where[-2:])}
        for metric in FIDELITY:
            if row["seeds"] > 1 and f"{metric}_sd" in row:
                spread = row[f"{metric}_sd"] * math.sqrt(1 + 1 / row["seeds"])
                row[f"{metric}_reach"] = t_factor(row["seeds"] - 1) * spread
        rows.append(row | named(study, row))

    def gap(metric: str, one: Row, other: Row) -> tuple[float, float]:
        change = difference(by_seed(runs, metric, one["step"], one["sampler"]), one["arm"], other["arm"])
        return change.pooled.bounds() if change else (math.nan, math.nan)

    return rows, gap


def _table1(study: Study, row: Row) -> Row:
    ours = row["model"] == "SiT-XL/2" and study.images.dataset == "folder"
    epochs = round(row["step"] / published.ITERATIONS_PER_EPOCH) if ours else math.nan
    method = row["method"] if ours else f"{row['method']}, {row['model']}, {row['step']:,} steps"
    apart = published.apart(study, row["arm"], row["sampler"], published.GUIDED)
    labels = study.sampler(row["sampler"]).labels
    return {"method": method, "epochs": epochs, "sampling_labels": labels, "apart": apart}


def _table2(study: Study, row: Row) -> Row:
    return {"apart": published.apart(study, row["arm"], row["sampler"], published.PLAIN)}


def _table3(study: Study, row: Row) -> Row:
    what = kind(study.arms[row["arm"]])
    method = f"{what.base} + StableVM + VA" if what.stablevm and what.regime == "low (soft)" else row["method"]
    return {"method": method, **_table2(study, row)}


def _ablation(study: Study, row: Row) -> Row:
    """Of the base's protocol: the arm itself differs from it in the one setting."""
    apart = published.apart(study, row["base"], row["sampler"], published.PLAIN)
    return {"setting": row["setting"].rpartition(".")[2], "apart": apart}


def _of(name: str, named: Callable[[Study, Row], Row]) -> Measured:
    return lambda results: _trained(results, name, named)


def _pipelines(results: Results, name: str) -> tuple[list[Row], Gap]:
    """Rows of a table of pretrained models. A score's error is over prompts; the other metrics have none."""
    settings: Any = results.study.pretrained
    rows = []
    for row in results.table(name).to_dict("records"):
        tiny = row["family"] in settings.tiny
        row |= {"model": f"tiny {MODELS[row['family']]}" if tiny else MODELS[row["family"]]}
        row |= {"solver": sampler(row["solver"], row["kind"]), "source": f"{name}: {row['family']}, {row['arm']}"}
        row |= {"total_steps": row["steps"], "low_regime_steps": row["low_steps"], "group": row["family"]}
        row["score_reach"] = 1.96 * math.sqrt(2) * row["score_error"]
        row |= {"score_low": row["score"] - 1.96 * row["score_error"]}
        row |= {"score_high": row["score"] + 1.96 * row["score_error"]}
        noisy = [f"noise_factor {settings.noise_factor:g}, not 0"] if settings.noise_factor else []
        rows.append(row | {"apart": ["a tiny model trained here"] * tiny + noisy})

    def gap(metric: str, one: Row, other: Row) -> tuple[float, float]:
        if metric != "score":
            return math.nan, math.nan
        change, reach = one["score"] - other["score"], 1.96 * math.hypot(one["score_error"], other["score_error"])
        return change - reach, change + reach

    return rows, gap


def _images(metrics: tuple[str, ...], score: str) -> dict[str, str]:
    return {"score": score, **{metric: SIMILARITY[metric] for metric in metrics}}


TABLES: dict[str, PaperTable] = {
    "table1": PaperTable(
        "Table 1. ImageNet 256 with guidance",
        TABLE1,
        Columns({**METHOD, "epochs": "Epochs", "sampling_labels": "Labels"}, {}, FIDELITY),
        _of("table1", _table1),
    ),
    "table2": PaperTable(
        "Table 2. ImageNet 256 without guidance, by model",
        TABLE2,
        Columns({**MODEL, **METHOD, **STEPS}, {}, FIDELITY),
        _of("table2", _table2),
    ),
    "table3": PaperTable(
        "Table 3. ImageNet 256 without guidance, by base method",
        TABLE3,
        Columns({**MODEL, "base": "Base", **METHOD, **STEPS}, {}, FIDELITY),
        _of("table3", _table3),
    ),
    "ablations": PaperTable(
        "Ablations of training",
        XI,
        Columns({**MODEL, "setting": "Setting", "value": "Value", **STEPS}, {}, {"fid": "FID"}),
        _of("ablations", _ablation),
    ),
    "table4": PaperTable(
        "Table 4. StableVS on text-to-image models",
        pretrained.TABLE4,
        Columns(PIPELINE, {**BELOW, **XI_TITLE}, _images(("psnr", "ssim", "lpips"), "GenEval")),
        lambda results: _pipelines(results, "table4"),
    ),
    "table5": PaperTable(
        "Table 5. StableVS on a text-to-video model",
        pretrained.TABLE5,
        Columns(PIPELINE, {**BELOW, **XI_TITLE}, {"psnr": "PSNR", "score": "T2V-CompBench consistency"}),
        lambda results: _pipelines(results, "table5"),
    ),
    "pretrained_xi": PaperTable(
        "Ablation of ξ in sampling",
        pretrained.XI,
        Columns({**PIPELINE, **XI_TITLE}, BELOW, _images(("psnr",), "GenEval")),
        lambda results: _pipelines(results, "pretrained_xi"),
    ),
}
"""By the table of the study that each is made from, in the paper's order (registry.PAPER_TABLES)."""


def make_paper_tables(study: Study, folder: Path) -> None:
    """Write every table of the paper that the study has numbers for, in every format, into `folder`/paper."""
    results = Results(study, folder, tables=registry.tables(study))
    for name in registry.paper_tables(study):
        table = TABLES[name]
        frame = table.make(results)
        with atomic_write(folder / LAYOUT.paper_table(name)) as temporary:
            frame.to_csv(temporary, index=False, float_format="%.6g")
        for suffix, written in FORMATS.items():
            with atomic_write(folder / LAYOUT.paper_table(name, suffix)) as temporary:
                temporary.write_text(written(table.title, table.columns, frame), encoding="utf-8")
