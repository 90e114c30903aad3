"""Candidates beside the long run on held-out pictures, and the verdict. All runs are of one picture each."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats

from stablevelocity.errors import UserError
from stablevelocity.evaluation.similarity import LPIPS_BACKBONE, LPIPS_MIN_SIZE, compare_images
from stablevelocity.schedulers.tuned import base_config
from stablevelocity.tuning.pipelines import Model, Sample
from stablevelocity.tuning.recommend import LongRuns, Recommendation, recommend, thinned
from stablevelocity.tuning.trajectory import Trajectory

#: PSNR of one picture at most, in dB: beyond that no 8-bit value differs by one.
MOST_PSNR = 60.0
#: The paper's split point for large models.
PAPER_XI = 0.85
TUNING_PICTURES = 3
#: In dB: what two disjoint sets of prompts choose is worth the same within this (benchmarks/TUNING.md says how often).
AGREEMENT = 2.0

Request = tuple[str, int]
"""A prompt and the seed of its noise."""


@dataclass(frozen=True)
class Arm:
    """One way to sample: what the pipeline is asked for, and the StableVS scheduler's options."""

    steps: int
    options: dict[str, Any]


@dataclass
class Comparison:
    """Rows: one per arm, means over the pictures. `pictures`: per arm, in order of the requests."""

    rows: list[dict[str, Any]]
    pictures: dict[str, list[np.ndarray]]
    calls: int
    note: str = ""  # why there is no LPIPS


def arms_for(long: Trajectory, calls: int, recommendation: Recommendation | None = None) -> dict[str, Arm]:
    """The candidates of `calls` network calls, by name; those of a recommendation where one is given.

    `stablevs` is absent where no step would be left below 0.85. The control arm takes the base solver's own step on
    the thinned grid (of the recommendation, or else of the paper); with Euler it is StableVS itself, so absent.
    """
    steps, levels = len(long.sigmas) - 1, long.sigmas
    arms = {"base": Arm(calls, {"enabled": False})}
    high = _high(long)
    path = thinned(steps, high, calls, long.multistep) if high < calls else []
    if path:
        arms["stablevs"] = Arm(steps, {"xi": PAPER_XI, "low_steps": calls - high})
    if recommendation is not None:
        arms["tuned"] = Arm(steps, {"xi": recommendation.xi, "low_steps": recommendation.low_steps})
        path = thinned(steps, calls - recommendation.low_steps, calls, long.multistep)
    if path and long.multistep:
        # With xi 0 no step is the closed form.
        arms["control"] = Arm(steps, {"xi": 0.0, "grid": [levels[i] for i in path[:-1]]})
    if recommendation is not None:
        arms["grid"] = Arm(steps, {"xi": 0.0, "grid": list(recommendation.grid)})
    return arms


def _high(long: Trajectory) -> int:
    """Levels at or above the paper's split point, in the schedulers' precision."""
    return int(np.count_nonzero(np.asarray(long.sigmas, dtype=np.float32) >= np.float32(PAPER_XI)))


def compare(
    model: Model, requests: Sequence[Request], long_runs: Sequence[Sample], arms: dict[str, Arm], say: Callable
) -> Comparison:
    """Each arm's pictures against the long run's of the same noise: PSNR and SSIM, and LPIPS where its weights are.

    `gain` is the PSNR over the base arm's, with the 95 % interval of a paired t-test over pictures.
    """
    samples = {"long": list(long_runs)}
    for name, arm in arms.items():
        samples[name] = [model.sample(prompt, seed, arm.steps, **arm.options) for prompt, seed in requests]
        say(f"{name}: {len(requests)} pictures of {samples[name][0].calls} calls")
    scores = {name: _scores(runs, long_runs) for name, runs in samples.items() if name != "long"}
    rows = []
    for name, runs in samples.items():
        row: dict[str, Any] = {"arm": name, "calls": runs[0].calls, "sigmas": runs[0].trajectory.sigmas[:-1]}
        row["seconds"] = float(np.mean([run.seconds for run in runs]))
        if name != "long":
            row |= {key: float(values.mean()) for key, values in scores[name].items()}
        if name not in ("long", "base"):
            gain = scores[name]["psnr"] - scores["base"]["psnr"]
            row["gain"], *bounds = interval(gain)
            if len(gain) > 1:  # one picture has no interval
                row["gain_low"], row["gain_high"] = bounds
        rows.append(row | ({"options": arms[name].options} if name in arms else {}))
    note = "" if "lpips" in scores["base"] else _why_no_lpips(long_runs[0].picture)
    if note:
        say(note)
    used = sum(run.calls for name, runs in samples.items() for run in runs if name != "long")
    return Comparison(rows, {name: [run.picture for run in runs] for name, runs in samples.items()}, used, note)


def _why_no_lpips(picture: np.ndarray) -> str:
    side = min(picture.shape[-3:-1])
    if side < LPIPS_MIN_SIZE:
        return f"LPIPS is left out: it needs pictures of {LPIPS_MIN_SIZE} pixels or more, these have {side}"
    return f"LPIPS is left out: its weights ({LPIPS_BACKBONE}) are not in torch's hub cache; none are downloaded"


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, and its 95 % interval by Student's t; NaN bounds for a single value."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = float(scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return mean, mean - half, mean + half


def _scores(runs: Sequence[Sample], long_runs: Sequence[Sample]) -> dict[str, np.ndarray]:
    """One value per picture; a video's is the mean over its frames."""
    scores: dict[str, list[float]] = {}
    for run, long in zip(runs, long_runs, strict=True):
        frames = (sample.picture.reshape(-1, *sample.picture.shape[-3:]) for sample in (run, long))
        for name, values in compare_images(*frames).items():
            value = np.minimum(values, MOST_PSNR).mean() if name == "psnr" else values.mean()
            scores.setdefault(str(name), []).append(float(value))
    return {name: np.array(values) for name, values in scores.items()}


def verdict(comparison: Comparison) -> tuple[str, str]:
    """(arm to use, sentence): the arm of the highest mean PSNR, which may be the base scheduler.

    Where the gain's interval holds 0 the sentence says so; keeping the base then would on average lose more than it
    saves (benchmarks/TUNING.md).
    """
    best = max(comparison.rows[1:], key=lambda row: row["psnr"])
    if best["arm"] == "base":
        nearest = f"nothing came nearer to the long run than its {best['psnr']:.1f} dB"
        return "base", f"keep the base scheduler: at {best['calls']} calls {nearest}"
    gain = f"{best['gain']:+.1f} dB over the base scheduler (95 % {best['gain_low']:+.1f} to {best['gain_high']:+.1f})"
    doubt = "" if best["gain_low"] > 0 else "; it may be chance, a larger budget would tell"
    return best["arm"], f"use {best['arm']} at {best['calls']} calls: {best['psnr']:.1f} dB, {gain}{doubt}"


def requests_of(prompts: Sequence[str], held_out: bool, count: int, seed: int) -> list[Request]:
    """For tuning, or held out: no noise in both, and no prompt where there are two or more."""
    group = prompts[int(held_out) :: 2] or prompts
    first = 1000 * seed + 500 * held_out
    return [(group[i % len(group)], first + i) for i in range(count)]


def compare_pipeline(
    model: Model, prompts: Sequence[str], *, steps: int, calls: int | None, seed: int, say: Callable[[str], None]
) -> Comparison:
    """Long run, base, StableVS at 0.85 and its control, one picture per prompt; `calls` None: 9 steps below 0.85."""
    _check_calls("compare-pipeline", calls, steps)
    requests = [(prompt, 1000 * seed + number) for number, prompt in enumerate(prompts)]
    long_runs = [model.sample(prompt, number, steps, enabled=False) for prompt, number in requests]
    long = long_runs[0].trajectory
    calls = calls or _high(long) + 9
    _check_calls("compare-pipeline", calls, steps)
    return compare(model, requests, long_runs, arms_for(long, calls), say)


def tune(
    model: Model,
    prompts: Sequence[str],
    *,
    steps: int = 30,
    calls: int | None = None,
    loss_db: float | None = None,
    budget: int = 16,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> tuple[dict[str, Any], Comparison]:
    """Recommend from three long runs, verify on held-out pictures: (what tuning.json holds, comparison).

    All network calls together are at most those of `budget` long runs.
    """
    if not prompts:
        raise UserError("tune: no prompt given; expected at least one")
    if budget < 16:
        raise UserError(f"tune: budget {budget} long runs; expected at least 16")
    _check_calls("tune", calls, steps)
    tuning = requests_of(prompts, False, TUNING_PICTURES, seed)
    runs = [model.sample(prompt, number, steps, enabled=False) for prompt, number in tuning]
    paths = [run.trajectory for run in runs]
    recommendation = recommend(paths, calls=calls, loss_db=loss_db)
    calls = recommendation.calls
    arms = arms_for(paths[0], calls, recommendation)
    total, spent = budget * runs[0].calls, sum(run.calls for run in runs)
    held_out = (total - spent) // (runs[0].calls + len(arms) * calls)
    say(f"budget: {total} network calls, {spent} for the recommendation, {held_out} held-out pictures")
    requests = requests_of(prompts, True, held_out, seed)
    long_runs = [model.sample(prompt, number, steps, enabled=False) for prompt, number in requests]
    comparison = compare(model, requests, long_runs, arms, say)
    spent += sum(run.calls for run in long_runs) + comparison.calls
    chosen, sentence = verdict(comparison)
    halves = two_sets(chosen, recommendation, paths, [run.trajectory for run in long_runs])
    agreement = _agreement(chosen, halves)
    say(agreement)
    say(f"{sentence}; {spent} of {total} network calls made")
    return {
        "pipeline": model.name,
        "scheduler": type(model.stock).__name__,
        "class": model.stablevs.__name__,
        "base_config": base_config(model.stock.config),
        "arguments": model.arguments,
        "steps": steps,
        "calls": calls,
        "sigmas": paths[0].sigmas,
        "tuning_requests": tuning,
        "held_out_requests": requests,
        "recommendation": dataclasses.asdict(recommendation),
        "two_sets": halves,
        "agreement": agreement,
        "arms": comparison.rows,
        "chosen": chosen,
        "options": None if chosen == "base" else {"low_steps": 9, "grid": None, "calls": None, **arms[chosen].options},
        "verdict": sentence,
        "network_calls": spent,
        "budget_calls": total,
    }, comparison


def _check_calls(verb: str, calls: int | None, steps: int) -> None:
    if calls is not None and not 2 <= calls < steps:
        raise UserError(f"{verb}: calls={calls}; expected 2 to {steps - 1}, fewer than the long run's {steps}")


def two_sets(
    chosen: str,
    recommendation: Recommendation,
    tuning: Sequence[Trajectory],
    held_out: Sequence[Trajectory],
) -> list[float] | None:
    """PSNR in dB expected on all runs of the chosen arm: as the tuning runs place its steps, and the held-out ones.

    None for arms whose steps stand where they stand for any prompts.
    """
    if chosen in ("base", "stablevs"):
        return None
    calls, levels = recommendation.calls, list(tuning[0].sigmas)
    steps, whole = len(levels) - 1, LongRuns([*tuning, *held_out])

    def worth(placed: Recommendation) -> float:
        high = calls - placed.low_steps
        path = thinned(steps, high, calls, whole.multistep)
        if chosen == "grid":
            path = [*(levels.index(level) for level in placed.grid), steps]
        return min(whole.expected(path, closed_form_from=high if chosen == "tuned" else None), MOST_PSNR)

    return [worth(recommendation), worth(recommend(held_out, calls=calls))]


def _agreement(chosen: str, halves: list[float] | None) -> str:
    if halves is None:
        return f"two disjoint sets of runs: {chosen} places its steps alike for both"
    first, second = halves
    agree, remedy = ("agree", "") if abs(first - second) <= AGREEMENT else ("differ", "; raise --budget")
    worth = f"{chosen} of {first:.1f} and {second:.1f} dB expected on both"
    return f"two disjoint sets of runs {agree} (tolerance {AGREEMENT:g} dB): {worth}{remedy}"
