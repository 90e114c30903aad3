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
from stablevelocity.reporting.paper_formats import FORMATS, show
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections import pretrained
from stablevelocity.reporting.sections.training import TABLE1, TABLE2, TABLE3, XI, published
from stablevelocity.reporting.sections.training.data import by_seed
from stablevelocity.reporting.spec import LAYOUT
from stablevelocity.reporting.statistics import difference, t_factor
from stablevelocity.study import Study
from stablevelocity.study.methods import ablations, kind

Measured = Callable[[Results, str], tuple[list[Row], Gap]]
FIDELITY = {metric: METRICS[metric] for metric in published.METRICS}
MODEL, STEPS, METHOD = {"model": "Model"}, {"iterations": "Iterations"}, {"method": "Method"}
PIPELINE = {**MODEL, "solver": "Solver", "total_steps": "Steps"}
EPOCHS = {"epochs": "Epochs", "sampling_labels": "Labels"}
BELOW, XI_TITLE = {"low_regime_steps": "Below ξ"}, {"xi": "ξ"}
CONSISTENCY = "t2v_compbench_consistency"
MODELS = {"sd35": "SD3.5-Large", "flux": "Flux-dev", "qwen-image": "Qwen-Image", "wan22": "Wan2.2"}


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper: its rows in the `file` of config/published, and those `measured` of a study."""

    file: str
    columns: Columns
    measured: Measured

    def make(self, results: Results, name: str) -> DataFrame:
        """The table called `name`, without measured rows where the study has no such table."""
        papers = results.published(self.file).rename(columns={"geneval_overall": "score", CONSISTENCY: "score"})
        if "setting" in self.columns.keys:
            papers = papers.assign(setting="xi", value=papers["xi"])
        own = self.measured(results, name) if name in results.tables else ([], lambda *_: (math.nan, math.nan))
        return compose(self.columns, papers.to_dict("records"), *own)


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


def _of(named: Callable[[Study, Row], Row]) -> Measured:
    return lambda results, name: _trained(results, name, named)


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


IMAGES = {"score": "GenEval", **{metric: SIMILARITY[metric] for metric in ("psnr", "ssim", "lpips")}}
VIDEOS = {"psnr": "PSNR", "score": "T2V-CompBench consistency"}
XI_COLUMNS = Columns({**PIPELINE, **XI_TITLE}, BELOW, {"score": "GenEval", "psnr": "PSNR"})
ABLATED = Columns({**MODEL, "setting": "Setting", "value": "Value", **STEPS}, {}, {"fid": "FID"})
TABLES: dict[str, PaperTable] = {
    "table1": PaperTable(TABLE1, Columns({**METHOD, **EPOCHS}, {}, FIDELITY), _of(_table1)),
    "table2": PaperTable(TABLE2, Columns({**MODEL, **METHOD, **STEPS}, {}, FIDELITY), _of(_table2)),
    "table3": PaperTable(TABLE3, Columns({**MODEL, "base": "Base", **METHOD, **STEPS}, {}, FIDELITY), _of(_table3)),
    "ablations": PaperTable(XI, ABLATED, _of(_ablation)),
    "table4": PaperTable(pretrained.TABLE4, Columns(PIPELINE, {**BELOW, **XI_TITLE}, IMAGES), _pipelines),
    "table5": PaperTable(pretrained.TABLE5, Columns(PIPELINE, {**BELOW, **XI_TITLE}, VIDEOS), _pipelines),
    "pretrained_xi": PaperTable(pretrained.XI, XI_COLUMNS, _pipelines),
}
"""By the table of the study that each is made from, see registry.PAPER_TABLES."""


def make_paper_tables(study: Study, folder: Path) -> None:
    """Write every table of the paper in every format into `folder`/paper, with what the study measured of it."""
    results = Results(study, folder, tables=registry.tables(study))
    for name, title in registry.paper_tables(study).items():
        frame = TABLES[name].make(results, name)
        shown = show(TABLES[name].columns, frame)
        with atomic_write(folder / LAYOUT.paper_table(name)) as temporary:
            frame.to_csv(temporary, index=False, float_format="%.6g")
        for suffix, written in FORMATS.items():
            with atomic_write(folder / LAYOUT.paper_table(name, suffix)) as temporary:
                temporary.write_text(written(title, shown), encoding="utf-8")
