"""Is the recommended grid the right one? `python -m benchmarks.tuning [--tiny FOLDER] [--digits RESULTS]`

A row per model, base solver and number of calls. All of a row starts from the same noise and is compared with the
base solver's 30-step run: PSNR in dB of the final state, peak its range, mean over the 33 pictures that the
recommendation (3 pictures) has not seen. `chosen` is the arm that is nearest on 3 of the 33, and what it is worth on
the other 30, over 200 draws of the three; in brackets how often it is that arm. `--tiny` is a folder with the
pipelines of `config/pretrained-tiny.yaml` (for the committed table: trained for a quarter of its transformers' and half
of its autoencoders' steps), `--digits` the results of config/digits-arms.yaml. The table goes to benchmarks/TUNING.md.
"""

import argparse
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measuring import machine
from stablevelocity import schedulers
from stablevelocity.files import atomic_write
from stablevelocity.gmm import GaussianMixture
from stablevelocity.tuning.compare import TUNING_PICTURES, arms_for, interval
from stablevelocity.tuning.recommend import LongRuns, recommend, thinned
from stablevelocity.tuning.trajectory import Trajectory, record

RESULTS = Path(__file__).parent / "TUNING.md"
PICTURES, HELD_OUT, STEPS = 36, 3, 30
#: In dB: an arm this far below the best of the sweep still counts as having reached it.
TOLERANCE = 0.5
FLOW: dict[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
SCHEDULERS: dict[str, Any] = {
    "Euler": schedulers.StableVSFlowMatchEulerScheduler,
    "DPM-Solver++": schedulers.StableVSDPMSolverMultistepScheduler,
    "UniPC": schedulers.StableVSUniPCMultistepScheduler,
}


@dataclass(frozen=True)
class Case:
    """A velocity with the noise to start from, and the scheduler config to run it with."""

    name: str
    velocity: Callable[[Tensor, float], Tensor]
    noise: Tensor
    config: dict[str, Any]
    most_psnr: float
    mu: float | None = None

    def run(self, solver: str, steps: int, **options: Any) -> Any:
        """The recording of one run."""
        shift = self.config.get("shift", self.config.get("flow_shift", 1.0))
        config = self.config if solver == "Euler" else {**FLOW, "flow_shift": shift}
        scheduler = SCHEDULERS[solver].from_config(config, **options)
        if self.mu is None or solver != "Euler":
            scheduler.set_timesteps(steps)
        else:  # as the pipelines of Flux and Qwen-Image do
            scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=self.mu)
        x = self.noise
        with record(scheduler) as recording, torch.no_grad():
            for i, timestep in enumerate(scheduler.timesteps):
                x = scheduler.step(self.velocity(x, float(scheduler.sigmas[i])), timestep, x, return_dict=False)[0]
        return recording


def row(case: Case, solver: str, calls: int) -> dict[str, Any]:
    """PSNR by arm, the best of the sweep, and what the tool's choice came to."""
    is_euler = solver == "Euler"
    recording = case.run(solver, STEPS, enabled=False)
    long, end = recording.trajectory(), recording.end.flatten(1).double()
    peak = float(end.max() - end.min())

    def psnr(**options: Any) -> np.ndarray:
        steps = options.pop("steps", STEPS)
        run = case.run(solver, steps, **options)
        assert run.calls == calls, f"{run.calls} calls, not {calls}: {options}"
        error = (run.end.flatten(1).double() - end).square().mean(dim=1)
        return (10 * torch.log10(peak**2 / error)).clamp(max=case.most_psnr).numpy()

    tuning = [_part(long, range(TUNING_PICTURES))]
    found = recommend(tuning, calls=calls, skip_smallest=is_euler)
    other = recommend([_part(long, range(PICTURES - TUNING_PICTURES, PICTURES))], calls=calls, skip_smallest=is_euler)
    unseen = slice(TUNING_PICTURES, None)
    arms = arms_for(is_euler, long, calls, found)
    by_picture = {name: psnr(steps=arm.steps, **arm.options)[unseen] for name, arm in arms.items()}
    levels = long.sigmas
    highs = [high for high in range(1, calls) if thinned(STEPS, high, calls, is_euler)]
    sweep = np.stack([psnr(xi=(levels[h - 1] + levels[h]) / 2, low_steps=calls - h)[unseen] for h in highs])
    whole = LongRuns([long])
    expected = [whole.expected([*(levels.index(level) for level in each.grid), STEPS]) for each in (found, other)]
    return {
        "case": case.name,
        "solver": solver,
        "calls": calls,
        **{name: float(values.mean()) for name, values in by_picture.items()},
        "sweep": float(sweep.mean(axis=1).max()),
        "expected": found.expected_grid,
        "two_sets": abs(expected[0] - expected[1]),
        **choices(by_picture, sweep),
    }


def choices(by_picture: dict[str, np.ndarray], sweep: np.ndarray, draws: int = 200) -> dict[str, Any]:
    """What `tune` chooses on 3 pictures and what that is worth on the others, over random draws of the three."""
    rng, names = np.random.default_rng(0), list(by_picture)
    values = np.stack([by_picture[name] for name in names])
    base = names.index("base")
    chosen, over, cautious, worst = [], [], [], []
    for _ in range(draws):
        order = rng.permutation(values.shape[1])
        seen, rest = order[:HELD_OUT], order[HELD_OUT:]
        nearest = int(values[:, seen].mean(axis=1).argmax())
        _, low, _ = interval((values[nearest] - values[base])[seen])
        worth, best = values[:, rest].mean(axis=1), sweep[:, rest].mean(axis=1).max()
        chosen.append(names[nearest])
        over.append(worth[nearest] - best)
        cautious.append(worth[nearest if low > 0 else base] - best)
        worst.append(nearest == worth.argmin())
    usual = max(names, key=chosen.count)
    return {
        "chosen": f"{usual} ({100 * chosen.count(usual) // draws} %)",
        "over_sweep": float(np.mean(over)),
        "within": float(np.mean(np.array(over) >= -TOLERANCE)),
        "cautious_within": float(np.mean(np.array(cautious) >= -TOLERANCE)),
        "worst": float(np.mean(worst)),
    }


def _part(long: Trajectory, rows: range) -> Trajectory:
    """Some of the pictures."""
    return Trajectory(long.sigmas, long.states[:, list(rows)], long.velocities[:, list(rows)])


def mixtures() -> Iterator[Case]:
    """Mixtures of 400 modes in 20 classes, of white and of power-law spectrum (coordinate k has deviation ~ 1/k)."""
    dimension, modes, classes, spread = 256, 400, 20, 0.1
    for spectrum, guidance in itertools.product(("white", "power law"), (1.0, 4.5)):
        generator = torch.Generator().manual_seed(0)
        k = torch.arange(1, dimension + 1, dtype=torch.float64)
        scale = torch.ones_like(k) if spectrum == "white" else 1 / k
        scale = scale / scale.square().mean().sqrt()
        means = torch.randn(modes, dimension, generator=generator, dtype=torch.float64)
        means = means * scale * math.sqrt(1 - spread**2)
        variances = (scale * spread).square().expand(modes, dimension).contiguous()
        whole = GaussianMixture(torch.ones(modes), means, variances)
        parts = [
            GaussianMixture(torch.ones(modes // classes), means[c::classes], variances[c::classes])
            for c in range(classes)
        ]

        def velocity(x: Tensor, t: float, whole=whole, parts=parts, guidance=guidance) -> Tensor:
            if guidance == 1:
                return whole.velocity(x, t)
            plain, guided = whole.velocity(x, t), torch.empty_like(x)
            for c, part in enumerate(parts):
                guided[c::classes] = part.velocity(x[c::classes], t)
            return plain + guidance * (guided - plain)

        noise = torch.randn(PICTURES, dimension, generator=torch.Generator().manual_seed(1))
        yield Case(f"mixture, {spectrum}, guidance {guidance:g}", velocity, noise, {"shift": 3.0}, 100.0)


def tiny_models(folder: Path) -> Iterator[tuple[Case, tuple[str, ...]]]:
    """The four tiny models in `folder`, guidance 3, each with the base solvers to run it by."""
    from stablevelocity.pretrained.families import FAMILIES
    from stablevelocity.pretrained.prompts import digit_prompts, digit_video_prompts
    from stablevelocity.pretrained.tiny import GRID, TINY_FAMILIES
    from stablevelocity.pretrained.words import encode_words

    for name, tiny in TINY_FAMILIES.items():
        pipeline = FAMILIES[name].load(folder / name, torch.float32)
        prompts = digit_video_prompts(PICTURES, 0) if tiny.frames else digit_prompts(PICTURES // 6 + 1, 0)
        chosen = np.random.default_rng(0).permutation(len(prompts))[:PICTURES]
        words = encode_words([prompts[i]["prompt"] for i in chosen])
        text = torch.cat([words, encode_words([""] * PICTURES)])

        def velocity(x: Tensor, t: float, tiny=tiny, network=pipeline.transformer, text=text) -> Tensor:
            guided, plain = tiny.velocity(network, torch.cat([x, x]), torch.full((2 * len(x),), t), text).chunk(2)
            return plain + 3.0 * (guided - plain)

        frames = (3,) if tiny.frames else ()
        noise = torch.randn(PICTURES, 16, *frames, 2 * GRID, 2 * GRID, generator=torch.Generator().manual_seed(1))
        config, mu = dict(pipeline.scheduler.config), None
        if config.get("use_dynamic_shifting"):
            span = config["max_image_seq_len"] - config["base_image_seq_len"]
            slope = (config["max_shift"] - config["base_shift"]) / span
            mu = config["base_shift"] + slope * (GRID**2 - config["base_image_seq_len"])
        # The multistep solvers of SD3 and Wan have the same shift; the others' dynamic shift they lack.
        solvers = (
            ("UniPC", "DPM-Solver++") if tiny.frames else ("Euler", "DPM-Solver++") if name == "sd35" else ("Euler",)
        )
        yield Case(f"tiny {name}", velocity, tiny.pack(noise), config, 60.0, mu), solvers


def digits(results: Path) -> Iterator[Case]:
    """The SiT of the digits study's CFM and StableVM runs, guidance 1, uniform steps."""
    from stablevelocity.models.networks import load_network

    for run in ("cfm-s0", "stablevm-s0"):
        weights = next((results / "runs" / run / "weights").glob("*.safetensors"))
        model, _ = load_network(weights)
        labels = torch.arange(PICTURES) % model.num_classes

        def velocity(x: Tensor, t: float, model=model, labels=labels) -> Tensor:
            return model.velocity(x, torch.full((len(x),), t), labels)

        shape = (PICTURES, model.in_channels, model.input_size, model.input_size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        yield Case(f"digits SiT, {run}", velocity, noise, {"shift": 1.0}, 60.0)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--tiny", type=Path, help="folder of the four tiny pipelines")
    options.add_argument("--digits", type=Path, help="results folder of config/digits-arms.yaml")
    given = options.parse_args()
    torch.set_num_threads(1)
    cases: list[tuple[Case, tuple[str, ...]]] = [(case, tuple(SCHEDULERS)) for case in mixtures()]
    if given.digits:
        cases += [(case, tuple(SCHEDULERS)) for case in digits(given.digits)]
    if given.tiny:
        cases += list(tiny_models(given.tiny))
    rows = []
    for case, solvers in cases:
        for solver, calls in itertools.product(solvers, (12, 20)):
            rows.append(row(case, solver, calls))
            print(line(rows[-1]), flush=True)
    with atomic_write(RESULTS) as temporary:
        temporary.write_text("\n".join(report(rows)) + "\n")


COLUMNS = ("base", "xi 0.85", "tuned", "control", "free grid", "sweep, best", "chosen", "chosen - sweep", "reached")


def line(found: dict[str, Any]) -> str:
    shown = [found["case"], found["solver"], str(found["calls"])]
    shown += [f"{found[arm]:.1f}" if arm in found else "-" for arm in ("base", "stablevs", "tuned", "control", "grid")]
    shown += [f"{found['sweep']:.1f}", found["chosen"], f"{found['over_sweep']:+.1f}", f"{100 * found['within']:.0f} %"]
    return f"| {' | '.join(shown)} |"


def report(rows: list[dict[str, Any]]) -> list[str]:
    """The page: table, then how often each way to choose came to the best of the sweep."""

    def column(name: str) -> np.ndarray:
        return np.array([found[name] for found in rows])

    def share(name: str) -> str:
        over = column(name) - column("sweep")
        return f"{np.count_nonzero(over >= -TOLERANCE)} of {len(rows)} rows (least {over.min():+.1f} dB)"

    arms = ("base", "stablevs", "tuned", "control", "grid")
    tuned_worst = sum(found["tuned"] <= min(found.get(arm, math.inf) for arm in arms) for found in rows)
    over_base = column("grid") - column("base")
    euler = [found["expected"] - found["grid"] for found in rows if found["solver"] == "Euler"]
    control = [found["control"] - found["tuned"] for found in rows if "control" in found]
    sets = column("two_sets")
    return [
        "# Does the tuned grid come near to the best one?",
        "",
        f"Made by `python -m benchmarks.tuning` ({machine()}).",
        (__doc__ or "").split("\n", 2)[2].strip(),
        "",
        f"| model | base solver | calls | {' | '.join(COLUMNS)} |",
        "|" + " --- |" * (3 + len(COLUMNS)),
        *(line(found) for found in rows),
        "",
        f"Reached: at most {TOLERANCE} dB below the best of StableVS's sweep over xi (all values, as many calls).",
        "",
        f"- `chosen`, the arm nearest on 3 held-out pictures: {100 * column('within').mean():.0f} % of all draws; in "
        f"{np.count_nonzero(column('over_sweep') >= -TOLERANCE)} of {len(rows)} rows on average over draws; "
        f"the worst arm in {100 * column('worst').mean():.1f} % of all draws",
        f"- the same, but the base scheduler where the gain's 95 % interval holds 0: "
        f"{100 * column('cautious_within').mean():.0f} % of all draws",
        f"- the free grid, unverified: {share('grid')}",
        f"- the recommended xi and low steps, unverified: {share('tuned')}; the worst arm in {tuned_worst}",
        f"- the base scheduler: {share('base')}",
        "",
        f"Free grid minus base scheduler: {over_base.mean():+.1f} dB on average, {over_base.min():+.1f} to "
        f"{over_base.max():+.1f}. Control minus tuned (the base solver's own multistep steps below xi, history and "
        f"all, in the place of closed-form ones): {np.mean(control):+.1f} dB on average, {min(control):+.1f} to "
        f"{max(control):+.1f}. Expected distances of the grids of two disjoint sets of 3 pictures, on all pictures: "
        f"{np.median(sets):.1f} dB apart (median), {sets.max():.1f} at most. Expected minus measured distance of the "
        f"free grid with Euler: {np.median(euler):+.1f} dB (median), {min(euler):+.1f} to {max(euler):+.1f}.",
    ]


if __name__ == "__main__":
    main()
