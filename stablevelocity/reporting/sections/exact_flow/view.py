"""Facts for the text about exact velocities."""

from typing import Any

import numpy as np

from stablevelocity.reporting.results import Results
from stablevelocity.reporting.sections.sampling.tables import nearest, stablevs
from stablevelocity.reporting.spec import LAYOUT


def view(results: Results) -> dict[str, Any]:
    spectrum = results.csv(LAYOUT.latent_spectrum)
    variance = spectrum["deviation"] ** 2
    # How many equal axes would have the same sum and sum of squares.
    axes = float(variance.sum() ** 2 / (variance**2).sum())
    facts = {"dimension": len(spectrum), "exponent": spectrum["exponent"].iloc[0], "axes": axes}
    return {"latents": facts, "own": digits_gain(results)}


def digits_gain(results: Results) -> float | None:
    """StableVS - base at equal calls of this study's own networks, in dB, at the flows' setting; None where the sweep
    has another shift or no such setting.
    """
    flow: Any = results.study.exact_flow
    sweep = results.study.sampling.sweep
    if sweep.shift != 3 or flow.solvers[0] not in sweep.thinned or not sweep.xi:
        return None
    table = stablevs(results)
    if "psnr_base" not in table:
        return None
    same = (table["solver"] == flow.solvers[0]) & (table["xi"] == nearest(np.array(sweep.xi), flow.xi[0]))
    rows = table[same & (table["low_steps"] == flow.low_steps[0])]
    gain = (rows["psnr_stablevs"] - rows["psnr_base"]).mean()
    return None if np.isnan(gain) else float(gain)
