"""Draws the figures of docs/method.md with the library: `python docs/figures/draw.py` (under a minute on one core)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure

from stablevelocity.alignment import SCHEDULES, alignment_weight
from stablevelocity.gmm import GaussianMixture, paper_mixture
from stablevelocity.interpolants import LinearPath
from stablevelocity.reporting.figures import COLOURS, STYLE
from stablevelocity.sampling import thin_times, uniform_times
from stablevelocity.targets import stablevm_target
from stablevelocity.variance import exact_variance_curve, variance_curve

FOLDER = Path(__file__).parent
PATH = LinearPath()


def regimes(figure: Figure) -> None:
    """Variance of the CFM target: by dimension, and by the points that are taken for the distribution."""
    left, right = figure.subplots(1, 2)
    times = torch.linspace(0.05, 0.99, 24, dtype=torch.float64)

    def curve(dimension: int, count: int):
        samples = paper_mixture(dimension).sample(count, _seeded(0)).float()
        return variance_curve(samples, PATH, times, queries=400, generator=_seeded(1)).mean / dimension**0.5

    for colour, dimension in zip(COLOURS[1:], (10, 100, 500), strict=False):
        left.plot(times, curve(dimension, 5000), color=colour, label=f"d = {dimension}")
    left.set(title="5,000 points as the distribution", xlabel="t  (0 data, 1 noise)", ylabel="V(t) / sqrt(d)")
    exact = exact_variance_curve(paper_mixture(100), PATH, times, queries=2000, generator=_seeded(2))
    right.plot(times, exact.mean / 10, color=COLOURS[0], label="the mixture itself (exact)")
    for colour, count in zip(COLOURS[1:], (500, 5000), strict=False):
        right.plot(times, curve(100, count), color=colour, label=f"{count:,} points of it")
    right.set(title="d = 100: points, or where they come from", xlabel="t  (0 data, 1 noise)", ylim=left.get_ylim())
    for axes in (left, right):
        axes.legend()


def references(figure: Figure) -> None:
    """Which references a noised sample could have come from, and the three velocities there."""
    centres = torch.tensor([[-1.5, 0.8], [1.2, 1.3], [0.4, -1.4]])
    mixture = GaussianMixture(torch.ones(3), centres, torch.full((3, 2), 0.12))
    data = mixture.sample(60, _seeded(3))
    chosen = data[(data - centres[0]).square().sum(1).argmin()][None]
    noise = torch.tensor([[1.1, -0.7]], dtype=torch.float64)
    all_axes = figure.subplots(1, 3, sharex=True, sharey=True)
    for axes, t in zip(all_axes, (0.04, 0.3, 0.7), strict=True):
        x_t = PATH.interpolate(chosen, noise, t)
        weights = (-(x_t - (1 - t) * data).square().sum(1) / (2 * t**2)).softmax(0)
        axes.scatter(*data.T, s=6 + 300 * weights, color=COLOURS[2], edgecolor=COLOURS[1], linewidth=0.6, zorder=2)
        arrows = {
            "CFM target": (PATH.conditional_velocity(x_t, chosen, t), COLOURS[3]),
            "StableVM target": (stablevm_target(x_t, t, data, PATH), COLOURS[4]),
            "velocity": (mixture.velocity(x_t, t), COLOURS[0]),
        }
        for width, (name, (value, colour)) in zip((0.014, 0.018, 0.007), arrows.items(), strict=True):
            # Towards the data: minus the velocity, half its length.
            axes.quiver(*x_t[0], *(-value[0] / 2), color=colour, label=name, width=width, **_ARROW)
        axes.plot(*x_t[0], "k.", zorder=5)
        axes.set(title=f"t = {t}: {1 / float(weights.square().sum()):.1f} in effect", xlim=(-2.7, 2.5))
        axes.set_ylim(-2.4, 2.4)
        axes.set_aspect("equal")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


_ARROW: Any = {
    "headwidth": 2.6,
    "headlength": 3.5,
    "headaxislength": 3.2,
    "angles": "xy",
    "scale_units": "xy",
    "scale": 1,
    "zorder": 4,
}


def variance_of_target(figure: Figure) -> None:
    """Variance of the StableVM target against the number of references."""
    axes = figure.subplots()
    mixture, counts = paper_mixture(10), [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    for colour, t in zip(COLOURS[1:], (0.5, 0.7, 0.9), strict=False):
        values = []
        for count in counts:
            g, batch = _seeded(count), max(200, 2**16 // count)
            data = mixture.sample(batch * count, g).reshape(batch, count, 10)
            x_t = PATH.interpolate(data[:, 0], torch.randn(batch, 10, dtype=torch.float64, generator=g), t)
            error = stablevm_target(x_t, t, data, PATH) - mixture.velocity(x_t, t)
            values.append(error.square().sum(1).mean().item())
        axes.loglog(counts, values, "o-", color=colour, label=f"t = {t}")
        axes.loglog(counts[3:], [values[0] / (n - 1) for n in counts[3:]], ":", color=colour)
    axes.set(title="Mixture in 10 dimensions (dotted: V / (n - 1))", xlabel="references n (1: CFM)")
    axes.set_ylabel("variance of the target")
    axes.legend()


def schedules(figure: Figure) -> None:
    """w(t) of the six alignment schedules at xi = 0.7."""
    axes = figure.subplots()
    t = torch.linspace(0, 1, 1001)
    # Dashes and widths keep lines that lie on each other apart.
    styles = {"hard": ("-", 4.5), "hard_high": ((0, (4, 2)), 2.5), "uniform": ((0, (1, 1)), 1.8)}
    for colour, name in zip(COLOURS, SCHEDULES, strict=False):
        style, width = styles.get(name, ("-", 1.8))
        axes.plot(t, alignment_weight(t, name), color=colour, label=name, linestyle=style, linewidth=width)
    axes.set(title="Alignment weight, xi = 0.7", xlabel="t  (0 data, 1 noise)", ylabel="w(t)")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def grids(figure: Figure) -> None:
    """Where Euler's steps and those of StableVS lie (schedule with shift 3, as SD3.5)."""
    axes = figure.subplots()

    def shifted(steps: int) -> torch.Tensor:
        times = uniform_times(steps)
        return 3 * times / (1 + 2 * times)

    rows = {"30 steps": shifted(30), "20 steps": shifted(20), "StableVS, xi = 0.85": thin_times(shifted(30), 0.85, 9)}
    for height, (name, times) in enumerate(rows.items()):
        axes.plot(times, [-height] * len(times), "|", markersize=16, markeredgewidth=1.6, color=COLOURS[height])
        axes.text(1.06, -height, f"{name}: {len(times) - 1} calls", va="center")
    axes.axvline(0.85, color="black", linewidth=0.8, linestyle=":")
    axes.set(title="Times at which the network is called", xlabel="t", yticks=[], xlim=(1.03, -0.03), ylim=(-2.6, 0.6))
    for label in axes.texts:
        label.set_x(-0.06)


FIGURES: dict[str, tuple[Callable[[Figure], None], tuple[float, float]]] = {
    "regimes": (regimes, (9, 3.4)),
    "references": (references, (9, 3.5)),
    "variance_of_target": (variance_of_target, (5.5, 3.4)),
    "schedules": (schedules, (6, 3.2)),
    "grids": (grids, (9, 1.9)),
}


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def main() -> None:
    for name, (draw, size) in FIGURES.items():
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=size, layout="constrained")
            draw(figure)
            # No date or version inside: the same numbers give the same file.
            figure.savefig(FOLDER / f"{name}.png", dpi=110, metadata={"Software": None})
        print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
