"""Do two disjoint sets of prompts lead to the same recommendation? `python -m benchmarks.two_sets [options]`

A row per model, base solver and number of calls, from the noise of the tables above. Each of two sets of pictures goes
through all that `tune` does: three recommend, as many as the budget pays (three to five) are held out, and the arm
that is nearest on these is chosen, PSNR counted as `tune` counts it, 60 dB at most for a picture. What both choices
are worth is measured on the pictures of neither set. `differ` is where the tool's line says so for either set; `new`
are models that no design was chosen on.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import machine, replace_section
from benchmarks.tuning_models import MIXTURES, NEW_MIXTURES, PICTURES, SCHEDULERS, Case, digits, mixtures, tiny_models
from stablevelocity.tuning.compare import AGREEMENT, MOST_PSNR, TUNING_PICTURES, Arm, arms_for, two_sets
from stablevelocity.tuning.recommend import recommend
from stablevelocity.tuning.trajectory import Trajectory

RESULTS = Path(__file__).parent / "TUNING.md"
HEADING = "## Two disjoint sets of prompts"
STEPS, BUDGET = 30, 16


def row(case: Case, solver: str, calls: int) -> dict[str, Any]:
    """What both sets choose, and what the choices and the free grids are worth (dB) on the pictures of neither."""
    long = case.run(solver, STEPS, enabled=False).trajectory()
    psnr = distances(case, solver, long)
    order = np.random.default_rng(calls).permutation(PICTURES)
    tuning = order[:TUNING_PICTURES], order[2 * TUNING_PICTURES : 3 * TUNING_PICTURES]
    others = np.setdiff1d(order, np.concatenate(tuning), assume_unique=True)
    recommended = [recommend(part(long, rows), calls=calls) for rows in tuning]
    arms = [arms_for(long, calls, recommendation) for recommendation in recommended]
    count = (BUDGET - TUNING_PICTURES) * STEPS // (STEPS + len(arms[0]) * calls)
    rest = others[2 * count :]
    choices, worth, grids, differ = [], [], [], False
    for number, held_out in enumerate((others[:count], others[count : 2 * count])):
        values = {name: np.minimum(psnr(arm), MOST_PSNR) for name, arm in arms[number].items()}
        choices.append(max(values, key=lambda name: values[name][held_out].mean()))
        worth.append(float(values[choices[-1]][rest].mean()))
        grids.append(float(values["grid"][rest].mean()))
        runs = part(long, tuning[number]), part(long, held_out)
        halves = two_sets(choices[-1], recommended[number], runs[:1], runs[1:])
        differ |= halves is not None and abs(halves[0] - halves[1]) > AGREEMENT
    shown = {"case": case.name, "solver": solver, "calls": calls}
    return shown | {"choices": choices, "worth": worth, "grids": grids, "differ": differ}


def distances(case: Case, solver: str, long: Trajectory) -> Callable[[Arm], np.ndarray]:
    """PSNR in dB of an arm's final states to the long run's, by picture; no arm is run twice."""
    end = long.states[-1].flatten(1).double()
    peak, known = float(end.max() - end.min()), {}

    def psnr(arm: Arm) -> np.ndarray:
        if repr(arm) not in known:
            error = case.run(solver, arm.steps, **arm.options).end.flatten(1).double() - end
            known[repr(arm)] = (10 * torch.log10(peak**2 / error.square().mean(dim=1))).numpy()
        return known[repr(arm)]

    return psnr


def part(long: Trajectory, rows: np.ndarray) -> Trajectory:
    """Some of the pictures."""
    return dataclasses.replace(long, states=long.states[:, rows], velocities=long.velocities[:, rows])


def line(result: dict[str, Any]) -> str:
    first, second = result["worth"]
    numbers = [f"{first:.1f}", f"{second:.1f}", f"{abs(first - second):.1f}", f"{abs(np.diff(result['grids'])[0]):.1f}"]
    marks = ["differ" if result["differ"] else "", "new" if result["new"] else ""]
    shown = [result["case"], result["solver"], str(result["calls"]), *result["choices"], *numbers]
    return f"| {' | '.join([*shown, *marks])} |"


def section(rows: list[dict[str, Any]]) -> str:
    """Of TUNING.md."""
    apart, grids = (np.abs(np.diff([result[name] for result in rows]))[:, 0] for name in ("worth", "grids"))
    differ = np.array([result["differ"] for result in rows])
    agree, beyond_sight = apart <= AGREEMENT, np.array([min(result["worth"]) > MOST_PSNR - 0.5 for result in rows])
    new = np.array([result["new"] for result in rows])
    columns = (
        "model | base solver | calls | first | second | worth | worth | apart | free grids apart | the tool says | new"
    )
    return "\n".join(
        [
            HEADING,
            "",
            f"Made by `python -m benchmarks.two_sets` ({machine()}).",
            (__doc__ or "").split("\n", 2)[2].strip(),
            "",
            f"| {columns} |",
            "|" + " --- |" * 11,
            *map(line, rows),
            "",
            f"- Both choices are worth the same within {AGREEMENT:g} dB in {np.count_nonzero(agree)} of {len(rows)} "
            f"rows, {100 * agree.mean():.0f} % ({np.median(apart):.1f} dB apart in the median, {apart.max():.1f} at "
            f"most); in {np.count_nonzero(beyond_sight)} of them because both come within half a dB of {MOST_PSNR:g}. "
            f"Of the new models: {np.count_nonzero(agree & new)} of {np.count_nonzero(new)} rows. "
            f"Free grids alone, unverified: {np.count_nonzero(grids <= AGREEMENT)} rows, {grids.max():.1f} dB at most",
            f"- `tune` says that the sets differ in {np.count_nonzero(differ)} rows, of which "
            f"{np.count_nonzero(differ & ~agree)} are more than {AGREEMENT:g} dB apart; where it says that they agree, "
            f"{np.count_nonzero(~differ & agree)} of {np.count_nonzero(~differ)} are within",
            "",
        ]
    )


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--tiny", type=Path, help="folder of the four tiny pipelines")
    options.add_argument("--digits", type=Path, help="results folder of config/digits-arms.yaml")
    given = options.parse_args()
    torch.set_num_threads(1)
    every = tuple(SCHEDULERS)
    cases = [(case, every, number >= len(MIXTURES)) for number, case in enumerate(mixtures(MIXTURES + NEW_MIXTURES))]
    if given.digits:
        cases += [(case, every, bool(seed)) for seed in (0, 1) for case in digits(given.digits, seed)]
    if given.tiny:
        cases += [(case, solvers, False) for case, solvers in tiny_models(given.tiny)]
    rows = []
    for case, solvers, new in cases:
        for solver, calls in itertools.product(solvers, (12, 20)):
            rows.append(row(case, solver, calls) | {"new": new})
            print(line(rows[-1]), flush=True)
    replace_section(RESULTS, HEADING, section(rows))


if __name__ == "__main__":
    main()
