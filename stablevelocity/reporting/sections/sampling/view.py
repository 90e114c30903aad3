"""What the text about StableVS and few steps shows."""

import math
from typing import Any

from stablevelocity.reporting.describe import sweep_text
from stablevelocity.reporting.format import number, plain, signed
from stablevelocity.reporting.names import GRIDS, SIMILARITY, SOLVERS
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.sampling import TABLE4, TABLE5, XI
from stablevelocity.reporting.text_table import TextTable, published_table, text_table


def view(results: Results) -> dict[str, Any]:
    sweep = results.study.sampling.sweep
    splits = results.table("variance")
    latents = splits[(splits["source"] == "latents") & (splits["law"] == "empirical")].to_dict("records")
    return {
        "shared": sweep_text(results.study, (*sweep.solvers, *sweep.thinned)),
        "latents": latents[0] if latents else None,
        "stablevs": _stablevs(results.table("stablevs")),
        "few_step": _few_step(results.table("few_step")),
        "paper4": published_table("Table 4 of the paper", results.published(TABLE4)),
        "paper5": published_table("Table 5 of the paper", results.published(TABLE5)),
        "paper_xi": published_table("The paper's sweep of xi", results.published(XI)),
    }


def _stablevs(table: DataFrame) -> TextTable:
    columns = [("Run", "run", str), ("Solver", "solver", str), ("xi", "xi", plain)]
    columns += [("Low steps", "low_steps", plain), ("Calls", "nfe", plain)]
    for name in ("psnr", "fid"):
        if f"{name}_stablevs" in table:
            arms = {"stablevs": f"{SIMILARITY[name]} StableVS", "control": "control", "base": "base"}
            columns += [(title, f"{name}_{arm}", number) for arm, title in arms.items()]
            columns += [(f"{effect}'s effect", f"{name}_{effect}", _effect) for effect in ("step", "grid")]
    return text_table("StableVS sweep", table.assign(solver=table["solver"].map(SOLVERS)), columns, folded=True)


def _effect(value: float) -> str:
    return signed(value, 2)


def _few_step(table: DataFrame) -> TextTable:
    columns = [("Run", "run", str), ("Solver", "solver", str), ("Grid", "grid", str)]
    columns += [("Steps", "steps", plain), ("Calls", "nfe", plain)]
    columns += [(title, name, _or_same) for name, title in SIMILARITY.items() if name in table]
    thinned = table["low_regime"] != "none"
    note = [f", xi {row.xi:g}, {row.low_steps:.0f} low steps" for row in table.itertuples()]
    table = table.assign(solver=table["solver"].map(SOLVERS), grid=table["low_regime"].map(GRIDS))
    table.loc[thinned, "grid"] += [text for text, one in zip(note, thinned, strict=True) if one]
    return text_table("Every sampler by its network calls", table, columns, folded=True)


def _or_same(value: float) -> str:
    """PSNR of the long run to itself is infinite."""
    return "same" if math.isinf(value) else number(value)
