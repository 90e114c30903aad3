"""Each figure: all its files, what it shows of made-up data whose right picture is known, and nothing cut off."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import BarContainer
from matplotlib.text import Text
from PIL import Image
from scipy import stats

from stablevelocity.interpolants import LinearPath
from stablevelocity.reporting import registry
from stablevelocity.reporting.figures import (
    INCHES,
    SUFFIXES,
    dots,
    label_of,
    mean_and_range,
    panels,
    pooled_half_widths,
    styled,
)
from stablevelocity.reporting.format import typeset
from stablevelocity.reporting.make import make_figure
from stablevelocity.reporting.results import Results
from stablevelocity.reporting.sections.toy.figures import toy_cost, toy_error
from stablevelocity.reporting.sections.training.figures import figure3
from stablevelocity.reporting.sections.training.samples import samples
from stablevelocity.reporting.sections.variance.figures import figure2, origin_weights
from stablevelocity.reporting.spec import LAYOUT
from stablevelocity.targets import stablevm_target

from . import synthetic

WIDTHS = pytest.mark.parametrize("width", list(INCHES))


def test_figures_come_as_pdf_svg_and_png_at_the_widths_of_a_page_and_of_a_column(digits):
    for name in registry.figures(synthetic.digits()):
        for width, suffixes in SUFFIXES.items():
            for suffix in suffixes:
                file = digits / f"figures/{name}.{suffix}"
                if suffix.endswith("png"):
                    with Image.open(file) as image:
                        assert image.width == round(200 * INCHES[width])
                        assert image.height < 2500
                else:
                    start = {"pdf": b"%PDF", "svg": b"<?xml"}[suffix.rpartition(".")[2]]
                    assert file.read_bytes().startswith(start)


def test_the_same_data_draws_the_same_bytes(tmp_path, digits):
    make_figure(synthetic.digits(), digits, "figure3", tmp_path / "figure3.png")
    for suffix in sum(SUFFIXES.values(), ()):
        assert (tmp_path / f"figure3.{suffix}").read_bytes() == (digits / f"figures/figure3.{suffix}").read_bytes()


def test_what_a_matplotlibrc_of_the_users_says_reaches_no_figure():
    """TeX that is not installed here, another size, another cut of the margins."""
    with styled():
        alone = dict(matplotlib.rcParams)
    own = {
        "text.usetex": True,
        "savefig.bbox": "tight",
        "lines.linewidth": 9,
        "pdf.fonttype": 42,
        "svg.fonttype": "path",
    }
    with matplotlib.rc_context(own), styled():
        assert dict(matplotlib.rcParams) == alone


def test_words_of_a_figure_are_text_and_whole(digits):
    """Shortening an SVG takes the spaces of its styles, not of its words."""
    for word in ("PUBLISHED: passes 0.1", "V/√d passes 0.1", "mixture, d = 100"):
        assert f">{word}</text>" in (digits / "figures/figure1.svg").read_text()


def test_serif_type_is_a_choice(tmp_path, digits):
    make_figure(synthetic.digits(), digits, "toy_cost", tmp_path / "toy_cost.pdf", serif=True)
    assert b"STIX" in (tmp_path / "toy_cost.svg").read_bytes()
    assert b"STIX" not in (digits / "figures/toy_cost.svg").read_bytes()


def texts_of(axis: Axes) -> list[Text]:
    """Titles, labels, the labels of ticks within the limits, and the words of the legend."""
    texts = [axis._left_title, axis.xaxis.label, axis.yaxis.label, *axis.texts]
    for one in (axis.xaxis, axis.yaxis):
        low, high = sorted(one.get_view_interval())
        texts += [tick.label1 for tick in one.get_major_ticks() if low <= tick.get_loc() <= high]
        texts += [tick.label2 for tick in one.get_major_ticks() if low <= tick.get_loc() <= high]
    texts += axis.get_legend().get_texts() if axis.get_legend() else []
    return [text for text in texts if text.get_visible() and text.get_text() and axis.get_visible()]


def assert_whole(results: Results, name: str, width: str) -> None:
    """That no word of a figure leaves it, and that no legend lies on a line."""
    with styled(width):
        figure = registry.figures(results.study)[name].load()(results)
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw_without_rendering()
    right, top = figure.bbox.max
    words = [text for axis in figure.axes for text in texts_of(axis)]
    words += [text for legend in figure.legends for text in (*legend.get_texts(), *legend.get_lines())]
    for text in [*words, figure._suptitle] if figure._suptitle else words:
        box = text.get_window_extent(renderer)
        assert min(box.x0, box.y0, right - box.x1, top - box.y1) > -1, str(text)
    for axis in [axis for axis in figure.axes if axis.get_legend()]:
        box = axis.get_legend().get_window_extent(renderer)
        for line in axis.lines:
            assert not line.get_path().transformed(line.get_transform()).intersects_bbox(box, filled=False), name


@WIDTHS
@pytest.mark.parametrize("name", list(registry.figures(synthetic.digits())))
def test_no_word_is_cut_and_no_legend_lies_on_a_line(digits, name, width):
    assert_whole(Results(synthetic.digits(), digits), name, width)


@WIDTHS
def test_no_word_is_cut_where_panels_are_narrow(digits, tmp_path, width):
    """A fourth column, of further low-regime steps."""
    study = synthetic.digits()
    for name in (LAYOUT.split_points, *map(LAYOUT.sweep, study.sweep_runs())):
        frame = pd.read_csv(digits / name)
        if "low_steps" in frame:
            more = [frame[frame["low_steps"] == frame["low_steps"].max()].assign(low_steps=steps) for steps in (12, 15)]
            frame = pd.concat([frame, *more])
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(tmp_path / name, index=False)
    assert_whole(Results(study, tmp_path), "stablevs", width)


def test_a_label_is_no_mathematics_and_is_set_in_lines():
    study = synthetic.digits()
    label = "a label of $x_{t}$ and t >= 0.5"
    arms = {**study.arms, "cfm": study.arms["cfm"].model_copy(update={"label": label})}
    text = label_of(study.model_copy(update={"arms": arms}), "cfm", 20)
    assert text == "a label of \\$x_{t}\\$\nand t ≥ 0.5"


def test_panels_stand_side_by_side_on_a_page_and_below_each_other_in_a_column():
    def grid(width, count):
        with styled(width):
            figure, axes = panels(count)
        return figure.get_figwidth(), axes[0].get_gridspec().ncols

    assert grid("page", 3) == (6.75, 3)
    assert grid("column", 3) == (3.25, 1)
    assert grid("page", 4) == (6.75, 4)
    assert grid("column", 4) == (3.25, 2)


def drawn_dots(values: pd.DataFrame):
    with styled():
        _, (axis,) = panels(1)
        dots(axis, synthetic.digits(), values)
    return axis


def test_with_two_seeds_the_interval_is_pooled_and_within_the_frame():
    values = pd.DataFrame({0: [3.0, 2.0, 1.2], 1: [3.4, 2.2, 1.3]}, index=["cfm", "repa", "stablevm"])
    # Naively: the squared deviations of all values from their arm's mean, one degree of freedom from each arm.
    deviation = np.sqrt(sum(np.var(row) * 2 for row in values.to_numpy()) / 3)
    half = stats.t.ppf(0.975, 3) * deviation / np.sqrt(2)
    assert pooled_half_widths(values).to_numpy() == pytest.approx([half] * 3)
    axis = drawn_dots(values)
    left, right = axis.get_xlim()
    intervals = [line.get_xdata() for line in axis.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    means = values.mean(axis="columns")
    assert np.array(intervals) == pytest.approx(np.array([(mean - half, mean + half) for mean in means]))
    for low, high in intervals:
        assert left < low < high < right


def test_with_one_seed_points_are_drawn_and_no_interval():
    axis = drawn_dots(pd.DataFrame({0: [3.0, 2.0]}, index=["cfm", "repa"]))
    assert all(line.get_linestyle() == "None" for line in axis.lines)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["CFM", "REPA"]


def test_a_missing_run_is_no_point():
    values = pd.DataFrame({0: [3.0, 2.0], 1: [3.2, np.nan]}, index=["cfm", "repa"])
    half = pooled_half_widths(values)
    # One degree of freedom, from the arm with two runs; the mean of a single run is known less well.
    assert half["cfm"] == pytest.approx(stats.t.ppf(0.975, 1) * np.std([3.0, 3.2], ddof=1) / np.sqrt(2))
    assert half["repa"] == pytest.approx(np.sqrt(2) * half["cfm"])
    assert sum(len(line.get_xdata()) for line in drawn_dots(values).lines if line.get_linestyle() == "None") == 3 + 2


def test_a_line_is_the_mean_over_seeds_and_its_band_their_range():
    frame = pd.DataFrame({"t": [0, 0, 1, 1], "seed": [0, 1, 0, 1], "y": [1.0, 3.0, 4.0, 8.0]})
    with styled():
        _, (axis,) = panels(1)
        mean_and_range(axis, frame, "t", "y", color="red")
    assert axis.lines[0].get_ydata().tolist() == [2.0, 6.0]
    corners = axis.collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in corners} == {(0, 1), (0, 3), (1, 4), (1, 8)}


def test_the_weights_of_figure_2_are_those_of_the_training_target():
    """Their mean of the references is what StableVM's target points at, and they add up to 1."""
    rng = np.random.default_rng(0)
    references = rng.uniform(-1, 1, (50, 4, 4, 3))
    for t in (0.2, 0.6, 0.95):
        noised = (1 - t) * references[7] + t * rng.standard_normal((4, 4, 3))
        weights = origin_weights(noised, references, t)
        assert weights.sum() == pytest.approx(1)
        x_t = torch.from_numpy(noised)[None]
        target = stablevm_target(x_t, torch.tensor([t]), torch.from_numpy(references), LinearPath())[0].numpy()
        # On the linear path v = (x_t - E[x_0 | x_t]) / t.
        assert np.tensordot(weights, references, 1) == pytest.approx(noised - t * target, abs=1e-6)


def test_figure_2_shows_one_origin_below_the_split_point_and_many_above(digits):
    with styled():
        figure = figure2(Results(synthetic.digits(), digits))
    weights = [[float(label.get_text()) for label in axis.get_xticklabels()[1:-1]] for axis in figure.axes]
    assert [len(row) for row in weights] == [8, 8, 8]
    assert all(row == sorted(row, reverse=True) for row in weights)
    assert weights[0][0] > weights[1][0] > weights[2][0]


@WIDTHS
def test_the_samples_begin_with_real_images_of_the_same_classes(digits, width):
    """The synthetic images have a bar that stands where the class says."""
    with styled(width):
        figure = samples(Results(synthetic.digits(), digits))
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["Real images", *(typeset(arm.label) for arm in synthetic.digits().arms.values())]
    columns = 20 if width == "page" else 10
    bars = []
    for axis in figure.axes:
        grid = axis.get_images()[0].get_array()
        rows = [grid[17 * row : 17 * row + 16] for row in range((len(grid) + 1) // 17)]
        cells = [row[:, 17 * place : 17 * place + 16] for row in rows for place in range(columns)]
        bars.append([int((cell[3:13] == 230).all(axis=(0, 2)).argmax()) - 3 for cell in cells])
    assert all(row == bars[0] for row in bars)
    assert set(bars[0]) == set(range(10))


def test_figure_3_has_the_regimes_where_the_study_has_them(digits):
    study = synthetic.digits()
    without = study.model_copy(update={"arms": {k: arm for k, arm in study.arms.items() if k != "repa-high"}})
    for one, panels_of_it in ((study, 3), (without, 2)):
        with styled():
            figure = figure3(Results(one, digits))
        assert len(figure.axes) == panels_of_it
        assert figure.axes[-1].get_title(loc="left").startswith("PUBLISHED VALUES")
        published = pd.read_csv(synthetic.PUBLISHED / "figure3b_alignment_regime.csv")["fid_50k"]
        assert [bar.get_width() for bar in figure.axes[-1].patches] == published.tolist()


def test_the_toy_s_figures_say_when_the_protocol_is_not_the_full_one(digits):
    with styled():
        figure = toy_error(Results(synthetic.digits(), digits))
    assert figure._suptitle.get_text().startswith("NOT THE FULL PROTOCOL: updates 3,000 (full: 20,000)")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["t = 0.2", "t = 0.3", "t = 0.4", "t = 0.5"]


def test_the_bars_of_the_cost_add_up_to_the_step(digits):
    frame = pd.read_csv(digits / "toy/cost.csv").sort_values("references")
    with styled():
        figure = toy_cost(Results(synthetic.digits(), digits))
    bars = [one for one in figure.axes[0].containers if isinstance(one, BarContainer)]
    heights = np.sum([[patch.get_height() for patch in one] for one in bars], axis=0)
    parts = frame[["seconds_update", "seconds_drawing", "seconds_target"]].sum(axis="columns")
    assert heights == pytest.approx(1e3 * parts.to_numpy())
