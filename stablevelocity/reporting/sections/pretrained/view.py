"""What the text about pretrained pipelines shows."""

from typing import Any

import pandas as pd

from stablevelocity.reporting.format import number, plain, whole
from stablevelocity.reporting.names import FAMILIES, SOLVERS
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.pretrained import TABLE4, TABLE5, XI, families, video_families
from stablevelocity.reporting.text_table import Column, TextTable, published_table, text_table
from stablevelocity.study.pretrained_settings import SOLVERS as BASES

KINDS = {"long": "", "short": "", "stablevs": " + StableVS", "control": ", control"}
EQUAL = "equal by construction, tested"
MODEL: Column = ("Model", "model", str)
SAMPLER: Column = ("Sampler", "sampler", str)


def view(results: Results) -> dict[str, Any]:
    study = results.study
    scores = results.table("pretrained_judge")
    same, drawn = _equal(results), results.table("table4")
    gaps = [] if drawn is None or not same else drawn[drawn["arm"] == "euler-stablevs"].to_dict("records")
    return {
        "settings": study.pretrained,
        "names": FAMILIES,
        "mains": ", ".join(f"{FAMILIES[name]} {SOLVERS[BASES[name][0]]}" for name in families(study)),
        "videos": video_families(study),
        "scores": [] if scores is None else scores.to_dict("records"),
        "models": _models(results.table("tiny_models")),
        "table4": _arms("Table 4 as measured: images", results.table("table4")),
        "table5": _arms("Table 5 as measured: videos", results.table("table5")),
        "sweep": _sweep(results, same),
        "errors": _errors(results.table("scheduler_errors")),
        "equal": EQUAL,
        "gaps": ", ".join(f"{FAMILIES[row['family']]} {number(row['psnr_over_control'])} dB" for row in gaps),
        "paper4": published_table("Table 4 of the paper", results.published(TABLE4)),
        "paper5": published_table("Table 5 of the paper", results.published(TABLE5)),
        "paper_xi": published_table("The paper's sweep of xi", results.published(XI)),
    }


def _named(table: DataFrame, kinds: dict[str, str] = KINDS) -> DataFrame:
    sampler = table["solver"].map(SOLVERS) + table["kind"].map(kinds)
    return table.assign(model=table["family"].map(FAMILIES), sampler=sampler)


def _models(table: DataFrame | None) -> TextTable | None:
    if table is None:
        return None
    columns = [
        MODEL,
        ("Transformer, parameters", "transformer_parameters", whole),
        ("Autoencoder, parameters", "autoencoder_parameters", whole),
        ("Autoencoder's PSNR, dB", "autoencoder_psnr", number),
        ("Last loss", "loss", number),
    ]
    return text_table("The tiny models", table.assign(model=table["family"].map(FAMILIES)), columns)


def _arms(title: str, table: DataFrame | None) -> TextTable | None:
    if table is None:
        return None
    tasks = [name for name in table if name.startswith("score_") and name != "score_error"]
    columns = [MODEL, SAMPLER, ("Steps", "steps", plain), ("Below xi", "low_steps", plain)]
    columns += [(name.upper(), name, number) for name in ("psnr", "ssim", "lpips") if name in table]
    columns += [("Score", "score", number), ("+-", "score_error", number)]
    columns += [(name.removeprefix("score_").replace("_", " "), name, number) for name in tasks]
    seconds = {"end_to_end": "s all", "denoising": "s denoising", "low_regime": "s below xi"}
    columns += [(name, f"seconds_{part}", number) for part, name in seconds.items()]
    return text_table(title, _named(table), columns)


def _equal(results: Results) -> list[str]:
    """Families whose control arm makes the very pictures of StableVS and is not drawn in the sweep."""
    settings: Any = results.study.pretrained
    return [name for name in families(results.study) if settings.control_equals_stablevs(name)]


def _sweep(results: Results, same: list[str]) -> TextTable:
    table = results.table("pretrained_xi")
    equal = table[(table["kind"] == "stablevs") & table["family"].isin(same)].assign(kind="equal")
    # Beside StableVS one control at each xi: the one that was drawn, else StableVS itself.
    table = pd.concat([table, equal])
    key = ["family", "xi", "beside"]
    table = table.assign(beside=table["kind"] != "stablevs").drop_duplicates(key).sort_values(key)
    columns = [MODEL, SAMPLER, ("xi", "xi", plain), ("Steps", "steps", plain), ("PSNR", "psnr", number)]
    columns += [("SSIM", "ssim", number), ("Score", "score", number), ("+-", "score_error", number)]
    return text_table("The sweep of xi", _named(table, {**KINDS, "equal": f", control ({EQUAL})"}), columns)


def _errors(table: DataFrame | None) -> TextTable | None:
    if table is None:
        return None
    kinds = {**KINDS, "long": ", long", "short": ", short"}
    table = table.assign(sampler=table["solver"].map(SOLVERS) + table["arm"].map(kinds))
    columns = [SAMPLER, ("Dimension", "dimension", plain), ("Calls", "calls", plain), ("Error", "rms_error", number)]
    return text_table("Schedulers on exactly known velocities", table, columns)
