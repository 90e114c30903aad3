"""StableVS against base solver and control arm on exact velocities, by seed and over seeds."""

import pandas as pd

from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.exact_flow import MIXTURE, SETTING
from stablevelocity.reporting.spec import LAYOUT
from stablevelocity.reporting.statistics import over_seeds

MEANS = ("calls", "base", "flips_base", "flips_stablevs")
EFFECTS = ("gain", "gain_truth", "control_gain", "step_gain")


def exact_flow_runs(results: Results) -> DataFrame:
    """One row per mixture, setting and seed; PSNR in dB.

    base: of the base solver to the long run; gain: StableVS - base at equal calls, gain_truth: the same by the PSNR to
    the true flow; control_gain: control - base; step_gain: StableVS - control, the closed form alone; flips_*: share of
    samples that end at another mode than in the long run.
    """
    frame = results.csv(LAYOUT.exact_flow)
    arms = frame.pivot(index=[*MIXTURE, *SETTING, "seed"], columns="arm")
    psnr, truth, flips = arms["psnr_long"], arms["psnr_truth"], arms["flips_long"]
    table = pd.DataFrame(
        {
            "calls": arms["calls"]["stablevs"],
            "base": psnr["base"],
            "gain": psnr["stablevs"] - psnr["base"],
            "gain_truth": truth["stablevs"] - truth["base"],
            "control_gain": psnr["control"] - psnr["base"],
            "step_gain": psnr["stablevs"] - psnr["control"],
            "flips_base": flips["base"],
            "flips_stablevs": flips["stablevs"],
        }
    )
    return table.reset_index()


def where(frame: DataFrame, **values: float | str) -> DataFrame:
    """The rows with these values."""
    for column, value in values.items():
        frame = frame[frame[column] == value]
    return frame


def first_setting(results: Results, runs: DataFrame) -> DataFrame:
    """The runs of the setting that all mixtures have."""
    flow = results.study.exact_flow
    assert flow is not None
    return where(runs, solver=flow.solvers[0], xi=flow.xi[0], low_steps=flow.low_steps[0])


def plain(results: Results, runs: DataFrame) -> DataFrame:
    """The runs of the first spread and guidance, which have all settings."""
    flow = results.study.exact_flow
    assert flow is not None
    return where(runs, spread=flow.spreads[0], guidance=flow.guidance[0])


def exact_flow(results: Results) -> DataFrame:
    """Every mixture with the first solver, xi and number of low-regime steps; means over seeds and 95 % intervals."""
    return _over_seeds(first_setting(results, exact_flow_runs(results)), MIXTURE)


def exact_flow_settings(results: Results) -> DataFrame:
    """Every solver, xi and number of low-regime steps, in the mixtures of the first spread and guidance."""
    return _over_seeds(plain(results, exact_flow_runs(results)), ("dimension", "exponent", *SETTING))


def _over_seeds(runs: DataFrame, keys: tuple[str, ...]) -> DataFrame:
    rows = []
    for key, part in runs.groupby(list(keys), sort=False):
        row = dict(zip(keys, key, strict=True)) | {"seeds": len(part)} | {name: part[name].mean() for name in MEANS}
        for name in EFFECTS:
            row |= over_seeds(part[name]).columns(name)
        rows.append(row)
    return pd.DataFrame(rows)
