"""Does StableVS help where the velocity is exact, and does its closed form?"""

from typing import Any

from stablevelocity.reporting.claims import Claim
from stablevelocity.reporting.format import counted
from stablevelocity.reporting.names import SOLVERS
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.exact_flow.tables import first_setting, plain, where
from stablevelocity.reporting.statistics import over_seeds
from stablevelocity.reporting.verdicts import by_effect


def claims(results: Results) -> list[Claim]:
    flow: Any = results.study.exact_flow
    runs = results.table("exact_flow_runs")
    first, made = first_setting(results, runs), []
    for exponent in sorted(flow.exponents):
        for dimension in sorted({min(flow.dimensions), max(flow.dimensions)}):
            own = where(first, dimension=dimension, exponent=exponent)
            headline = dimension == max(flow.dimensions) and exponent in (min(flow.exponents), max(flow.exponents))
            made.append(_gain(results, own, headline=headline))
    largest = where(plain(results, runs), dimension=max(flow.dimensions), exponent=max(flow.exponents))
    for solver in flow.solvers[1:]:
        made.append(_step(results, where(largest, solver=solver, xi=flow.xi[0], low_steps=flow.low_steps[0])))
    return made


def _shared(results: Results, rows: DataFrame) -> dict[str, Any]:
    flow: Any = results.study.exact_flow
    first = rows.iloc[0]
    how = {
        "runs": f"exact flows, {flow.modes} modes in {flow.classes} classes, d = {first['dimension']}",
        "seeds": ", ".join(str(seed) for seed in flow.seeds),
        "solver": first["solver"],
        "steps": f"{first['calls']:.0f} network calls",
        "low-regime steps": first["low_steps"],
        "xi": first["xi"],
        "spread within modes": first["spread"],
        "guidance": first["guidance"],
        "samples": f"{flow.samples} for each seed",
        "reference": f"{flow.steps} steps of the same solver, same noise",
    }
    seeds = counted(len(flow.seeds), "seed")
    scope = f"mixtures of {flow.modes} Gaussians whose velocity is exact, shift 3, no network; {seeds}"
    return {"how": how, "scope": scope}


def _facts(rows: DataFrame) -> dict[str, Any]:
    first = rows.iloc[0]
    white = first["exponent"] == 0
    spectrum = "white spectrum" if white else f"spectrum k^-{first['exponent']:g}"
    return {"first": first, "spectrum": spectrum, "solver": SOLVERS[first["solver"]], "base": rows["base"].mean()}


def _gain(results: Results, rows: DataFrame, *, headline: bool) -> Claim:
    """StableVS against its base solver at equal calls, by the first spread and guidance; the others are told."""
    own = plain(results, rows)
    gain, truth = over_seeds(own["gain"]), over_seeds(own["gain_truth"])
    others = rows.groupby(["spread", "guidance"])["gain"].mean()
    facts = _facts(own) | {"truth": truth.mean, "truth_bounds": truth.bounds(), "low": others.min()}
    facts |= {"high": others.max(), "flips": [own[f"flips_{arm}"].mean() for arm in ("base", "stablevs")]}
    name = f"exact-flow-{own.iloc[0]['exponent']:g}-{own.iloc[0]['dimension']}"
    told = {"text": "exact-flow-gain", "headline": headline}
    return Claim(name, by_effect(gain, "above"), value=gain.mean, facts=facts, **told, **_shared(results, own))


def _step(results: Results, rows: DataFrame) -> Claim:
    """The closed form against the base solver's own step, on the same grid."""
    step, control = over_seeds(rows["step_gain"]), over_seeds(rows["control_gain"])
    facts = _facts(rows) | {"control": control.mean, "control_bounds": control.bounds()}
    name = f"exact-flow-step-{rows.iloc[0]['solver']}"
    outcome = by_effect(step, "above")
    told = {"text": "exact-flow-step", "headline": False}
    return Claim(name, outcome, value=step.mean, facts=facts, **told, **_shared(results, rows))
