"""The style that all figures share, and the parts that several are drawn from.

A figure is drawn twice, at the width of a page and at that of a column: `panels` arranges its panels accordingly.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from PIL import Image

from stablevelocity.files import atomic_write
from stablevelocity.reporting.format import typeset
from stablevelocity.reporting.results import DataFrame
from stablevelocity.reporting.statistics import t_factor
from stablevelocity.reporting.templates import TEMPLATES
from stablevelocity.study import Study

STYLE = TEMPLATES / "figures.mplstyle"
Width = Literal["page", "column"]
INCHES: dict[Width, float] = {"page": 6.75, "column": 3.25}
SUFFIXES: dict[Width, tuple[str, ...]] = {"page": ("pdf", "svg", "png"), "column": ("column.pdf", "column.png")}
"""Of the files of a figure. The page shows the SVG, and the PNG of a column's width on small screens."""

SHORT_SPAN = 1.5
"""Largest over smallest value, below which a logarithmic axis would have no round numbers to show."""
MOST_COLOURS = 20_000
"""A drawing has fewer, a photograph more."""
MOST_SHADES = 64
"""Of a drawing as PNG: its colours and what softens their edges."""
COLOURS = ("#4d4d4d", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7b3294")
"""Those of the style file."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
PUBLISHED_COLOUR = "#8a6d00"


@contextmanager
def styled(width: Width = "page", *, serif: bool = False) -> Iterator[None]:
    """The context in which a figure is drawn, whatever matplotlibrc this user has. `serif`: in the type of a paper set
    in Times.
    """
    family = {"font.family": "STIXGeneral", "font.size": 8.5} if serif else {}
    with matplotlib.style.context([STYLE, {"figure.figsize": (INCHES[width], 2.4), **family}], after_reset=True):
        yield


def save(figure: Figure, out: Path, suffixes: tuple[str, ...]) -> None:
    """Write a figure beside `out` with these suffixes, laid out once for all; the same data gives the same bytes."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for suffix in suffixes:
        with atomic_write(out.with_name(f"{out.name.split('.')[0]}.{suffix}")) as temporary:
            if suffix.endswith("png"):
                _save_png(figure, temporary)
            elif suffix == "svg":
                figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
                temporary.write_text(_shorter(temporary.read_text()))
            else:
                nothing = {"CreationDate": None, "Producer": None, "Creator": None}
                figure.savefig(temporary, format="pdf", metadata=nothing)


def _save_png(figure: Figure, path: Path) -> None:
    """A third of the size for drawings: their few colours fit a palette. Photographs stay as they are."""
    figure.savefig(path, format="png", metadata={"Software": None})
    image = Image.open(path).convert("RGB")
    if image.getcolors(MOST_COLOURS):
        image = image.quantize(MOST_SHADES, method=Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
    image.save(path, "PNG", optimize=True, dpi=(figure.dpi, figure.dpi))


def _shorter(svg: str) -> str:
    """Places to a hundredth of a point, and no comments, indentation or names that nothing refers to: half the size."""
    svg = re.sub(r"<!--.*?-->\s*|<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    places = r' (?:d|x|y)="[^"]*"|translate\([^)]*\)'
    svg = re.sub(places, lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found.group().replace("\n", "")), svg)
    svg = svg.replace("'DejaVu Sans'", "'DejaVu Sans',Verdana,sans-serif")  # as wide, where it is not installed
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found.group() if found[1] in used else "", svg)
    svg = re.sub(r'style="[^"]*"', lambda found: found.group().replace("; ", ";").replace(": ", ":"), svg)
    return re.sub(r"\n\s*", "\n", svg)


def is_wide() -> bool:
    """Whether the figure is drawn at the width of a page."""
    return matplotlib.rcParams["figure.figsize"][0] > INCHES["column"]


def panels(
    count: int, columns: int = 4, height: float = 2.2, margin: float = 0.0, widths: list[float] | None = None
) -> tuple[Figure, list[Any]]:
    """A figure and its `count` panels, `columns` in a row of a page; in a column two of four or more, else one.

    `height` is that of a row in inches, to which `margin` is added once; `widths` are relative ones of the columns.
    """
    columns = min(count, columns)
    columns = columns if is_wide() else 2 if columns > 3 else 1
    rows = -(-count // columns)
    figure = Figure(figsize=(matplotlib.rcParams["figure.figsize"][0], height * rows + margin), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, width_ratios=widths if columns > 1 else None)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:count])


def legend_below(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """One legend for all panels, each label once, in as many columns as fit; the figure grows by its height."""
    once = dict(zip(labels, handles, strict=True))
    for columns in range(4 if is_wide() else 2, 0, -1):
        legend = figure.legend(list(once.values()), list(once), loc="outside lower center", ncols=columns)
        if legend.get_window_extent().width < figure.bbox.width:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + 0.16 * -(-len(once) // columns) + 0.1)


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def label_of(study: Study, arm: str, width: int = 60) -> str:
    """The label of an arm as a figure has it: in lines of `width` characters, and no mathematics in it."""
    return textwrap.fill(typeset(study.arms[arm].label), width, break_on_hyphens=False).replace("$", r"\$")


def arm_looks(study: Study) -> dict[str, dict[str, Any]]:
    """Colour, marker and label of each arm, the same in all figures of a study."""
    # The marker is shifted at each round of the colours, so that no two of 64 arms look alike.
    return {
        name: {"color": colour(index), "marker": marker(index + index // len(COLOURS)), "label": label_of(study, name)}
        for index, name in enumerate(study.arms)
    }


def mean_and_range(axes: Axes, frame: DataFrame, x: str, y: str, **look: Any) -> None:
    """A line through the means over seeds, and a band from the lowest to the highest."""
    seeds = frame.groupby(x)[y].agg(["mean", "min", "max"])
    axes.plot(seeds["mean"], **look)
    band(axes, seeds.index, seeds["min"], seeds["max"], look["color"])


def band(axes: Axes, x: Any, low: Any, high: Any, paint: str, alpha: float = 0.15) -> None:
    """The area between two lines."""
    axes.fill_between(x, low, high, color=paint, alpha=alpha, linewidth=0)


def mosaic(axes: Axes, pictures: np.ndarray, rows: Sequence[str] = (), columns: Sequence[str] = ()) -> None:
    """Pictures (rows, columns, H, W, 3) uint8 with white lines between them; labels at rows and above columns."""
    count, across, height, width, channels = pictures.shape
    gap = max(1, width // 24)
    cells = np.pad(pictures, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    height, width = height + gap, width + gap
    axes.imshow(cells.swapaxes(1, 2).reshape(count * height, across * width, channels)[:-gap, :-gap])
    axes.set_yticks(height * (np.arange(len(rows)) + 0.5), rows)
    axes.set_xticks(width * (np.arange(len(columns)) + 0.5), columns)
    axes.tick_params(length=0, bottom=False, labelbottom=False, labeltop=True)
    axes.set_frame_on(False)
    axes.grid(visible=False)


def mark_published(axes: Axes, what: str) -> None:
    """Make a panel of published values unmistakable: tinted, framed and labelled."""
    axes.set_facecolor("#fbf6e6")
    for side in axes.spines.values():
        side.set(visible=True, color=PUBLISHED_COLOUR, linestyle="--")
    axes.set_title(f"PUBLISHED VALUES\n{what}", color=PUBLISHED_COLOUR, pad=7, fontsize="small")


def plain_log(axis: Axis, low: float, high: float) -> None:
    """A logarithmic axis with ordinary numbers as labels, and enough of them when it spans less than a decade."""
    choices = ((300, "1"), (20, "1 2 5"), (4, "1 1.5 2 3 4 5 7"), (1.7, "1 1.2 1.5 2 2.5 3 4 5 6 7 8"))
    steps = next((text.split() for ratio, text in choices if high / low > ratio), np.arange(10, 100) / 10)
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    axis.set_major_locator(FixedLocator([float(step) * 10.0**decade for decade in decades for step in steps]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if 1e-4 <= value < 1e5 else _power(value)))


def _power(value: float) -> str:
    digits, exponent = f"{value:e}".split("e")
    factor = "" if float(digits) == 1 else rf"{float(digits):g} \times "
    return rf"${factor}10^{{{int(exponent)}}}$"


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

    The intervals take the spread from all arms together, which assumes that seeds scatter alike in all of them: two
    seeds of one arm alone would give an interval that dwarfs everything else. Each lies within the frame as a whole.
    """
    looks, half = arm_looks(study), pooled_half_widths(values)
    for place, (arm, seeds) in enumerate(values.iterrows()):
        paint, mark, seeds = looks[arm]["color"], looks[arm]["marker"], seeds.dropna()
        if np.isfinite(half[arm]):
            ends = seeds.mean() - half[arm], seeds.mean() + half[arm]
            axes.plot(ends, [place] * 2, color=paint, linewidth=2.2, alpha=0.45, solid_capstyle="butt")
        axes.plot(seeds, [place - 0.24] * len(seeds), mark, mfc="white", mec=paint, markersize=4)
        axes.plot(seeds.mean(), place, mark, color=paint, markersize=5.5)
    axes.margins(x=0.06)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set_yticks(range(len(values)), [label_of(study, arm, 40 if is_wide() else 20) for arm in values.index])
    axes.grid(axis="y", visible=False)


def pooled_half_widths(values: DataFrame) -> Any:
    """Of the 95 % interval of each arm's mean, by the standard deviation over seeds of all arms together.

    Student's t with as many degrees of freedom as there are values beyond the first of each arm; NaN if none.
    """
    counts = values.count(axis="columns")
    freedom = int((counts - 1).clip(lower=0).sum())
    squares = float((values.sub(values.mean(axis="columns"), axis="index") ** 2).sum().sum())
    deviation = np.sqrt(squares / freedom) if freedom else np.nan
    return t_factor(freedom) * deviation / np.sqrt(counts) if freedom else counts * np.nan
