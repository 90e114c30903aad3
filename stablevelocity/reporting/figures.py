"""Make one figure of a study: `make_figure(study, results, name, out)`; the style that all figures share."""

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

from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write
from stablevelocity.reporting import registry
from stablevelocity.reporting.source import PUBLISHED, Source
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


def make_figure(study: Study, results: Path, name: str, out: Path, *, published: Path = PUBLISHED) -> None:
    """Draw figure `name` of the registry once; write it as .pdf and .png beside each other.

    `out` is either of the two paths. Raises UserError for a name the study does not have.
    """
    figures = registry.figures(study)
    if name not in figures:
        raise UserError(f"figure {name!r}: study {study.name} has {', '.join(figures)}")
    with matplotlib.rc_context(STYLE):
        figure: Figure = figures[name].load()(Source(study, results, published))
        # Laid out once, for both files.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        # No dates and versions in the files: the same data gives the same bytes.
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
    axes = figure.subplots(rows, columns, squeeze=False, width_ratios=widths)
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
    choices = (
        (300, (1,)),
        (20, (1, 2, 5)),
        (4, (1, 1.5, 2, 3, 4, 5, 7)),
        (1.7, (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8)),
    )
    steps = next((steps for ratio, steps in choices if high / low > ratio), tuple(np.arange(10, 100) / 10))
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    axis.set_major_locator(FixedLocator([step * 10.0**decade for decade in decades for step in steps]))
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


def split_line(axes: Axes, at: float, low: float, high: float, label: str) -> None:
    """A vertical line at a split point with its interval as a band."""
    if np.isfinite(at) and at > 0:
        axes.axvspan(low, high, color="#009e73", alpha=0.15, linewidth=0)
        axes.axvline(at, color="#009e73", linestyle="--", linewidth=1.2, label=label)


def dots(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """One line per arm: every seed as a hollow dot, the mean as a filled one, its 95 % interval as a bar.

    A row holds label, colour, marker, seeds (values), mean, low and high (NaN: no bar). First row on top.
    Intervals that would flatten everything else (two seeds) are cut at the frame and end in an arrow.
    """
    everything = np.concatenate([np.asarray(row["seeds"], dtype=float) for row in rows])
    spread = float(everything.max() - everything.min()) or float(abs(everything).max()) * 0.1 or 1.0
    left, right = float(everything.min()) - 0.6 * spread, float(everything.max()) + 0.6 * spread
    left = max(left, 0.0) if everything.min() >= 0 else left
    for place, row in enumerate(rows):
        low, high = row["low"], row["high"]
        if np.isfinite(low):
            axes.plot(
                [max(low, left), min(high, right)], [place, place], color=row["colour"], linewidth=2.2, alpha=0.45
            )
            for end, beyond, sign in ((left, low < left, "<"), (right, high > right, ">")):
                if beyond:
                    axes.plot(end, place, sign, color=row["colour"], markersize=6, clip_on=False)
        above = [place - 0.24] * len(row["seeds"])
        axes.plot(row["seeds"], above, row["marker"], mfc="white", mec=row["colour"], markersize=6)
        axes.plot(row["mean"], place, row["marker"], color=row["colour"], markersize=8)
    axes.set_xlim(left, right)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
    axes.grid(axis="y", visible=False)
