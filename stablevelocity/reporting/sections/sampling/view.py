"""Facts for the text about StableVS and few steps."""

from typing import Any

from stablevelocity.reporting.describe import sweep_text
from stablevelocity.reporting.names import GRIDS
from stablevelocity.reporting.results import Results


def view(results: Results) -> dict[str, Any]:
    sweep = results.study.sampling.sweep
    splits = results.table("variance")
    few = results.table("few_step")
    thinned = [f", xi {row.xi:g}, {row.low_steps:.0f} low steps" * (row.xi == row.xi) for row in few.itertuples()]
    latents = splits[(splits["source"] == "latents") & (splits["law"] == "empirical")].to_dict("records")
    return {
        "shared": sweep_text(results.study, (*sweep.solvers, *sweep.thinned)),
        "latents": latents[0] if latents else None,
        "few_step": few.assign(grid=few["low_regime"].map(GRIDS) + thinned),
    }
