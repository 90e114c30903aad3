"""Is the recommended grid the right one? `python -m benchmarks.tuning [--tiny FOLDER] [--digits RESULTS]`

A row per model, base solver and number of calls. All of a row starts from the same noise and is compared with the
base solver's 30-step run: PSNR in dB of the final state, peak its range, mean over the 33 pictures that the
recommendation (3 pictures) has not seen, with the 95 % interval over pictures. `choice` is what `tune` ends with: the
arm that is nearest on 3 of the 33, and what it is worth on the others, over 200 draws of the three; named is the arm
that it is most often. `--tiny` is a folder with the pipelines of `config/pretrained-tiny.yaml`, `--digits` the results
of config/digits-arms.yaml. The tables go to benchmarks/TUNING.md.
"""

import argparse
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import machine, section_of
from benchmarks.tuning_models import MIXTURES, NEW_MIXTURES, SCHEDULERS, Case, digits, mixtures, tiny_models
from benchmarks.two_sets import HEADING, part
from stablevelocity.files import atomic_write
from stablevelocity.tuning.compare import TUNING_PICTURES, arms_for, interval
from stablevelocity.tuning.recommend import recommend, thinned

RESULTS = Path(__file__).parent / "TUNING.md"
HELD_OUT, STEPS = 3, 30
#: In dB: an arm this far below the best of the sweep still counts as having reached it.
TOLERANCE = 0.5


def row(case: Case, solver: str, calls: int) -> dict[str, Any]:
    """PSNR by arm, the best of the sweep, and what the tool's choice came to."""
    recording = case.run(solver, STEPS, enabled=False)
    long, end = recording.trajectory(), recording.end.flatten(1).double()
    peak = float(end.max() - end.min())

    def psnr(**options: Any) -> np.ndarray:
        steps = options.pop("steps", STEPS)
        run = case.run(solver, steps, **options)
        assert run.calls == calls, f"{run.calls} calls, not {calls}: {options}"
        error = (run.end.flatten(1).double() - end).square().mean(dim=1)
        return (10 * torch.log10(peak**2 / error)).clamp(max=case.most_psnr).numpy()

    unseen = slice(TUNING_PICTURES, None)
    tuning = part(long, np.arange(TUNING_PICTURES))
    recommendation = recommend(tuning, calls=calls)
    arms = arms_for(long, calls, recommendation)
    by_picture = {name: psnr(steps=arm.steps, **arm.options)[unseen] for name, arm in arms.items()}
    levels = long.sigmas
    highs = [high for high in range(1, calls) if thinned(STEPS, high, calls, long.multistep)]
    sweep = np.stack([psnr(xi=(levels[h - 1] + levels[h]) / 2, low_steps=calls - h)[unseen] for h in highs])
    return {
        "case": case.name,
        "solver": solver,
        "calls": calls,
        **{name: interval(values) for name, values in by_picture.items()},
        "expected": recommendation.expected_grid,
        **choices(by_picture, sweep),
    }


def choices(by_picture: dict[str, np.ndarray], sweep: np.ndarray, draws: int = 200) -> dict[str, Any]:
    """What `tune` chooses on 3 pictures and what that is worth on the others, over random draws of the three.

    `over_*` are differences per picture, with their interval; the shares are of single draws.
    """
    rng, names = np.random.default_rng(0), list(by_picture)
    values, best = np.stack([by_picture[name] for name in names]), sweep[sweep.mean(axis=1).argmax()]
    base, least = names.index("base"), values.mean(axis=1).argmin()
    worth = np.full((draws, values.shape[1]), math.nan)  # of the choice, on the pictures that it has not seen
    chosen, cautious, below_base, worst = [], [], [], []
    for draw in worth:
        order = rng.permutation(values.shape[1])
        seen, rest = order[:HELD_OUT], order[HELD_OUT:]
        nearest = int(values[:, seen].mean(axis=1).argmax())
        draw[rest] = values[nearest, rest]
        chosen.append(names[nearest])
        means = values[:, rest].mean(axis=1)
        _, low, _ = interval((values[nearest] - values[base])[seen])
        cautious.append(means[nearest if low > 0 else base] - best[rest].mean() >= -TOLERANCE)
        worst.append(nearest == means.argmin())
        below_base.append(means[nearest] - means[base])
    worth, usual = np.nanmean(worth, axis=0), max(names, key=chosen.count)
    return {
        "sweep": interval(best),
        "choice": interval(worth),
        "over_base": interval(worth - values[base]),
        "over_sweep": interval(worth - best),
        "over_worst": interval(worth - values[least]),
        "chosen": f"{usual} ({100 * chosen.count(usual) // draws} %)",
        "cautious": float(np.mean(cautious)),
        "worst": float(np.mean(worst)),
        "lost_when_worst": -min(
            (lost for lost, is_worst in zip(below_base, worst, strict=True) if is_worst), default=0.0
        ),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--tiny", type=Path, help="folder of the four tiny pipelines")
    options.add_argument("--digits", type=Path, help="results folder of config/digits-arms.yaml")
    given = options.parse_args()
    torch.set_num_threads(1)
    known: list[tuple[Case, tuple[str, ...]]] = [(case, tuple(SCHEDULERS)) for case in mixtures(MIXTURES)]
    new: list[tuple[Case, tuple[str, ...]]] = [(case, tuple(SCHEDULERS)) for case in mixtures(NEW_MIXTURES)]
    if given.digits:
        known += [(case, tuple(SCHEDULERS)) for case in digits(given.digits, 0)]
        new += [(case, tuple(SCHEDULERS)) for case in digits(given.digits, 1)]
    if given.tiny:
        known += list(tiny_models(given.tiny))
    tables = []
    for cases in (new, known):
        rows = []
        for case, solvers in cases:
            for solver, calls in itertools.product(solvers, (12, 20)):
                rows.append(row(case, solver, calls))
                print(line(rows[-1]), flush=True)
        tables.append(rows)
    page = [*report(tables[1], tables[0]), "", section_of(RESULTS, HEADING)]
    with atomic_write(RESULTS) as temporary:
        temporary.write_text("\n".join(page).rstrip() + "\n")


ARMS = {"base": "base", "stablevs": "xi 0.85", "tuned": "tuned xi", "control": "control", "grid": "free grid"}
MEASURED = {"sweep": "best of sweep", "choice": "choice"}
OVER = {"over_base": "choice - base", "over_sweep": "choice - best of sweep", "over_worst": "choice - worst arm"}
COLUMNS = ("model", "base solver", "calls", *ARMS.values(), *MEASURED.values(), "most often", *OVER.values())


def line(result: dict[str, Any]) -> str:
    def cell(name: str, sign: str = "") -> str:
        if name not in result:
            return "-"
        mean, low, _ = result[name]
        return f"{mean:{sign}.1f} ± {mean - low:.1f}"

    shown = [result["case"], result["solver"], str(result["calls"]), *map(cell, (*ARMS, *MEASURED)), result["chosen"]]
    return f"| {' | '.join([*shown, *(cell(name, '+') for name in OVER)])} |"


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows, then how often each way to choose came to the best of the sweep."""

    def means(name: str) -> np.ndarray:
        return np.array([result[name][0] for result in rows if name in result])

    def share(name: str) -> str:
        over = np.array([result[name][0] - result["sweep"][0] for result in rows])
        return f"{np.count_nonzero(over >= -TOLERANCE)} of {len(rows)} rows (least {over.min():+.1f} dB)"

    over, base, worst = means("over_sweep"), means("over_base"), means("over_worst")
    draws = 100 * np.mean([result["worst"] for result in rows])
    lost = max(result["lost_when_worst"] for result in rows)
    return [
        f"| {' | '.join(COLUMNS)} |",
        "|" + " --- |" * len(COLUMNS),
        *map(line, rows),
        "",
        f"- `tune`'s choice: {share('choice')} at most {TOLERANCE} dB below the best of StableVS's sweep over xi (all "
        f"values, as many calls), {100 * np.mean(over >= -TOLERANCE):.0f} %",
        f"- never the worst: {np.count_nonzero(worst > 0)} of {len(rows)} rows (least {worst.min():+.1f} dB above the "
        f"worst arm; {sum(result['over_worst'][1] > 0 for result in rows)} with an interval above 0). Of single draws "
        f"of the three held-out pictures {draws:.1f} % end with the arm that is worst on the others, then at most "
        f"{lost:.1f} dB below the base scheduler",
        f"- against as many base steps: at most {TOLERANCE} dB below in {np.count_nonzero(base >= -TOLERANCE)} of "
        f"{len(rows)} rows (least {base.min():+.1f} dB), {base.mean():+.1f} dB on average",
        f"- unverified: the free grid {share('grid')}; the recommended xi and low steps {share('tuned')}",
        f"- the base scheduler always: {share('base')}; where the interval of the gain on the three pictures holds 0: "
        f"{100 * np.mean([result['cautious'] for result in rows]):.0f} % of all draws",
    ]


def report(known: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[str]:
    rows = known + new
    gain = np.array([result["grid"][0] - result["base"][0] for result in rows])

    def beside(*solvers: str) -> str:
        values = [result["expected"] - result["grid"][0] for result in rows if result["solver"] in solvers]
        return f"{np.median(values):+.1f} dB (median), {min(values):+.1f} to {max(values):+.1f}"

    control = [result["control"][0] - result["tuned"][0] for result in rows if "control" in result]
    return [
        "# Does the tuned grid come near to the best one?",
        "",
        f"Made by `python -m benchmarks.tuning` ({machine()}).",
        (__doc__ or "").split("\n", 2)[2].strip(),
        "",
        "## Models that no design was chosen on",
        "",
        "Other mixtures, and digits networks of another seed; run once, with the designs as they are.",
        "",
        *table(new),
        "",
        "## Models that the designs were chosen on",
        "",
        "Ways of carrying errors to the end, of counting a multistep solver's errors and of verifying were compared on "
        "some of these, and the best was kept.",
        "",
        *table(known),
        "",
        "## Of both tables",
        "",
        f"Free grid minus base scheduler: {gain.mean():+.1f} dB on average, {gain.min():+.1f} to {gain.max():+.1f}. "
        f"Control minus tuned (the base solver's own multistep steps below xi, history and all, in the place "
        f"of closed-form ones): {np.mean(control):+.1f} dB on average, {min(control):+.1f} to {max(control):+.1f}. "
        f"Expected minus measured PSNR of the free grid: {beside('Euler')} with Euler; "
        f"{beside('DPM-Solver++', 'UniPC')} with the others.",
    ]


if __name__ == "__main__":
    main()
