"""StableVS beside control and base solver; FID against network calls."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stablevelocity.reporting.describe import SOLVERS
from stablevelocity.reporting.figures import PUBLISHED_COLOUR, log_y, mark_published, new_figure, plain_log, split_line
from stablevelocity.reporting.sections.sampling.tables import PAPER_XI, latent_split
from stablevelocity.reporting.sections.sampling.tables import few_step as few_step_table
from stablevelocity.reporting.sections.sampling.tables import stablevs as stablevs_table
from stablevelocity.reporting.source import Frame, Source

SOLVER_STYLES = {"euler": ("#0072b2", "o"), "heun": ("#009e73", "s"), "euler_maruyama": ("#d55e00", "^")}
AXES = {
    "psnr": "PSNR to the long run, dB",
    "ssim": "SSIM to the long run",
    "feature_distance": "feature distance to the long run",
    "fid": "FID (lower is better)",
}


REGIMES = {"control": "control", "stablevs": "StableVS"}
SHAPES = {"control": ("o", False), "stablevs": ("*", True)}
SIZES = (8, 12)
"""Of the markers for the two values of xi that `few_step` shows."""


def stablevs(source: Source) -> Figure:
    """PSNR to the long run and FID against xi, a column per number of low-regime steps; published PSNR at the right.

    Means over the swept runs. Filled: StableVS; hollow: control on the same grid; dotted: base solver, as many calls.
    """
    table = stablevs_table(source)
    measures = [measure for measure in ("psnr", "fid") if f"{measure}_stablevs" in table]
    lows = sorted(table["low_steps"].unique())
    figure, axes = new_figure(len(measures), len(lows) + 1, 2.7 * len(measures) + 0.5)
    split = latent_split(source)
    for i, measure in enumerate(measures):
        for j, low in enumerate(lows):
            axis = axes[i, j]
            _lines(axis, table[table["low_steps"] == low], measure)
            split_line(axis, *split, "latents' split point")
            axis.axvline(PAPER_XI, color=PUBLISHED_COLOUR, linestyle="-.", linewidth=1.1, label="the paper's xi")
            if i == 0:
                axis.set_title(f"{low} low-regime steps")
            if j == 0:
                axis.set_ylabel(AXES[measure])
            if i == len(measures) - 1:
                axis.set_xlabel("xi")
        _same_limits(axes[i, : len(lows)])
        if measure == "fid":
            for axis in axes[i, : len(lows)]:
                log_y(axis)
    _published(axes[0, -1], source)
    for axis in axes[1:, -1]:
        axis.axis("off")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _lines(axis: Axes, table: Frame, measure: str) -> None:
    for solver, part in table.groupby("solver", sort=False):
        paint, mark = SOLVER_STYLES[str(solver)]
        name = SOLVERS[str(solver)]
        mean = part.groupby("xi")[[f"{measure}_{arm}" for arm in ("stablevs", "control", "base")]].mean()
        axis.plot(mean.index, mean[f"{measure}_base"], ":x", color=paint, linewidth=1.3, label=f"{name}, same calls")
        control = mean[f"{measure}_control"]
        axis.plot(
            mean.index, control, "-", marker=mark, color=paint, alpha=0.55, mfc="white", markersize=9, linewidth=1
        )
        axis.plot([], [], marker=mark, color=paint, mfc="white", markersize=9, linewidth=1, label=f"{name}, control")
        ours = mean[f"{measure}_stablevs"]
        axis.plot(mean.index, ours, marker=mark, color=paint, markersize=4.5, label=f"{name} + StableVS")


def _same_limits(row: np.ndarray) -> None:
    low = min(axis.get_ylim()[0] for axis in row)
    high = max(axis.get_ylim()[1] for axis in row)
    for axis in row:
        axis.set_ylim(low, high)


def _published(axis: Axes, source: Source) -> None:
    """The paper's own sweep of xi on SD3.5-Large."""
    frame = source.published_csv("ablation_xi_sampling.csv")
    plain = source.published_csv("table4_stablevs_text_to_image.csv")
    plain = plain[(plain["model"] == "SD3.5-Large") & (plain["solver"] == "Euler") & (plain["total_steps"] == 20)]
    axis.plot(frame["xi"], frame["psnr"], "o-", color=PUBLISHED_COLOUR, markersize=4.5)
    for row in frame.itertuples():
        axis.annotate(f"{row.total_steps}", (row.xi, row.psnr), textcoords="offset points", xytext=(4, 5), fontsize=8)
    value = float(plain["psnr"].iloc[0])
    axis.axhline(value, color=PUBLISHED_COLOUR, linestyle=":")
    axis.annotate("Euler, 20 steps", (0.7, value), textcoords="offset points", xytext=(0, 4), fontsize=8)
    axis.set_xlim(0.66, 0.94)
    axis.set_ylim(10, 50)
    axis.set_xlabel("xi  (labels: total steps)")
    axis.set_ylabel("PSNR to 30 steps, dB")
    mark_published(axis, "SD3.5, 9 low steps")
    axis.title.set_fontsize(9)


def few_step(source: Source) -> Figure:
    """FID against network calls, a panel per swept run; both axes logarithmic."""
    study = source.study
    table = few_step_table(source)
    runs = list(dict.fromkeys(table["run"]))
    columns = min(3, len(runs))
    rows = -(-len(runs) // columns)
    figure, axes = new_figure(rows, columns, 2.9 * rows + 0.9)
    for axis, run in zip(axes.flat, runs, strict=False):
        part = table[table["run"] == run]
        _fidelity(axis, part, _xis(table))
        axis.set_title(study.arms[part["arm"].iloc[0]].label)
        axis.set_xlabel("network calls")
    for axis in axes.flat[len(runs) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("FID (lower is better)")
    figure.legend(handles=_legend(table), loc="outside lower center", ncols=4)
    return figure


def _legend(table: Frame) -> list[Line2D]:
    """Solvers by colour and marker; StableVS and control by shape, xi by size."""
    handles = []
    for solver in dict.fromkeys(table["solver"]):
        paint, mark = SOLVER_STYLES[str(solver)]
        handles.append(Line2D([], [], color=paint, marker=mark, label=SOLVERS[str(solver)]))
    for xi, size in zip(_xis(table), SIZES, strict=False):
        for regime, text in REGIMES.items():
            mark, filled = SHAPES[regime]
            face = "#555555" if filled else "white"
            label = f"{text}, xi = {xi:g}"
            handles.append(Line2D([], [], ls="", marker=mark, color="#555555", mfc=face, markersize=size, label=label))
    return handles


def _xis(table: Frame) -> list[float]:
    return sorted(table["xi"].dropna().unique(), reverse=True)


def _fidelity(axis: Axes, part: Frame, xis: list[float]) -> None:
    for solver, ours in part.groupby("solver", sort=False):
        paint, mark = SOLVER_STYLES[str(solver)]
        base = ours[ours["low_regime"] == "none"].sort_values("nfe")
        axis.plot(base["nfe"], base["fid"], color=paint, marker=mark)
        for xi, size in zip(xis, SIZES, strict=False):
            for regime, (shape, filled) in SHAPES.items():
                thinned = ours[(ours["low_regime"] == regime) & (ours["xi"] == xi)]
                face = paint if filled else "white"
                axis.plot(thinned["nfe"], thinned["fid"], shape, color=paint, mfc=face, markersize=size)
    axis.set_xscale("log")
    plain_log(axis.xaxis, *axis.get_xlim())
    log_y(axis)
