"""The style that all figures share, and the parts that several are drawn from."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from PIL import Image

from stablevelocity.files import atomic_write
from stablevelocity.reporting.results import DataFrame
from stablevelocity.reporting.statistics import over_seeds
from stablevelocity.study import Study

WIDTH = 9.0
"""Inches. At the report's page width a point of text is then about 1.5 pixels."""

DOTS_PER_INCH = 150
SHORT_SPAN = 1.5
"""Largest over smallest value, below which a logarithmic axis would have no round numbers to show."""
MOST_COLOURS = 20_000
"""A drawing has fewer, a photograph more."""

# Okabe & Ito's colours, told apart in all common forms of colour blindness; yellow left out (too pale on white).
COLOURS = ("#4d4d4d", "#0072b2", "#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#7b3294")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
PUBLISHED_COLOUR = "#8a6d00"
STYLE: Any = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "pdf.fonttype": 42,
    "svg.hashsalt": "stablevelocity",
}


def styled() -> Any:
    """The context in which all figures are drawn."""
    return matplotlib.rc_context(STYLE)


def save(figure: Figure, out: Path) -> None:
    """Write a figure as .pdf and .png, laid out once for both; the same data gives the same bytes."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    with atomic_write(out.with_suffix(".pdf")) as temporary:
        figure.savefig(temporary, metadata={"CreationDate": None, "Producer": None, "Creator": None})
    _save_png(figure, out.with_suffix(".png"))


def _save_png(figure: Figure, path: Path) -> None:
    """A third of the size for drawings: their few colours fit a palette. Photographs stay as they are."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DOTS_PER_INCH)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    if image.getcolors(MOST_COLOURS):
        image = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    with atomic_write(path) as temporary:
        image.save(temporary, optimize=True, dpi=(DOTS_PER_INCH, DOTS_PER_INCH))


def new_figure(rows: int = 1, columns: int = 1, height: float = 3.6, widths: list[float] | None = None) -> Any:
    """(figure, array of axes) at page width; `height` in inches, `widths` relative ones of the columns."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, width_ratios=widths)


def panels(count: int, columns: int, height: float, margin: float) -> Any:
    """(figure, array of axes) with `count` panels, at most `columns` in a row, each row `height` inches high."""
    rows = -(-count // columns)
    figure, axes = new_figure(rows, min(count, columns), height * rows + margin)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, axes


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def arm_colours(study: Study) -> dict[str, str]:
    """The colour of each arm, the same in all figures of a study."""
    return {arm: colour(index) for index, arm in enumerate(study.arms)}


def arm_markers(study: Study) -> dict[str, str]:
    # Shifted at each round of the colours, so that no two of 64 arms look alike.
    return {arm: marker(index + index // len(COLOURS)) for index, arm in enumerate(study.arms)}


def band(axes: Axes, x: Any, low: Any, high: Any, paint: str, alpha: float = 0.18) -> None:
    """The area between two lines."""
    axes.fill_between(x, low, high, color=paint, alpha=alpha, linewidth=0)


def mark_published(axes: Axes, what: str) -> None:
    """Make a panel of published values unmistakable: tinted, framed and labelled."""
    axes.set_facecolor("#fbf6e6")
    for side in axes.spines.values():
        side.set_visible(True)
        side.set_color(PUBLISHED_COLOUR)
        side.set_linestyle("--")
    axes.set_title(f"PUBLISHED VALUES\n{what}", color=PUBLISHED_COLOUR)


def plain_log(axis: Axis, low: float, high: float) -> None:
    """A logarithmic axis with ordinary numbers as labels, and enough of them when it spans less than a decade."""
    choices = ((300, "1"), (20, "1 2 5"), (4, "1 1.5 2 3 4 5 7"), (1.7, "1 1.2 1.5 2 2.5 3 4 5 6 7 8"))
    steps = next((text.split() for ratio, text in choices if high / low > ratio), np.arange(10, 100) / 10)
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    axis.set_major_locator(FixedLocator([float(step) * 10.0**decade for decade in decades for step in steps]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def log_y(axes: Axes) -> None:
    """A logarithmic y axis with ordinary numbers; a linear one where there is little to span. Call it last."""
    low, high = axes.get_ylim()
    if low > 0 and high / low < SHORT_SPAN:
        return
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    plain_log(axes.yaxis, low, high)
    axes.set_ylim(low, high)


def dots(axes: Axes, study: Study, values: DataFrame) -> None:
    """One line per arm, from a table of arms by seeds: every seed hollow, the mean filled, its 95 % interval as a bar.

    Intervals that would flatten everything else (two seeds) are cut at the frame and end in an arrow.
    """
    least, most = np.nanmin(values), np.nanmax(values)
    spread = (most - least) or abs(most) * 0.1 or 1.0
    left, right = least - 0.6 * spread, most + 0.6 * spread
    left = max(left, 0.0) if least >= 0 else left
    colours, markers = arm_colours(study), arm_markers(study)
    for place, arm in enumerate(values.index):
        paint, mark, seeds = colours[arm], markers[arm], values.loc[arm].dropna()
        (low, high), count = over_seeds(seeds).bounds(), len(seeds)
        if count > 1:
            axes.plot([max(low, left), min(high, right)], [place] * 2, color=paint, linewidth=2.2, alpha=0.45)
            for end, beyond, arrow in ((left, low < left, "<"), (right, high > right, ">")):
                if beyond:
                    axes.plot(end, place, arrow, color=paint, markersize=6, clip_on=False)
        axes.plot(seeds, [place - 0.24] * count, mark, mfc="white", mec=paint, markersize=6)
        axes.plot(seeds.mean(), place, mark, color=paint, markersize=8)
    axes.set(xlim=(left, right), ylim=(len(values) - 0.4, -0.6))
    axes.set_yticks(range(len(values)), [study.arms[arm].label for arm in values.index])
    axes.grid(axis="y", visible=False)
