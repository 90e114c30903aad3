"""The paper's tables with measured numbers: rows, verdicts, the best values, and the three formats."""

import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from stablevelocity.reporting import registry
from stablevelocity.reporting.make import make_table
from stablevelocity.reporting.paper import Columns, compose, verdict
from stablevelocity.reporting.paper_formats import Shown, show, to_html, to_latex, to_markdown
from stablevelocity.reporting.paper_rows import TABLES, make_paper_tables
from stablevelocity.reporting.results import Results

from . import synthetic
from .test_tables import imagenet

COLUMNS = Columns({"method": "Method", "steps": "Steps"}, {"xi": "ξ"}, {"fid": "FID", "is": "IS"})
PUBLISHED = [
    {"method": "A", "steps": 100, "xi": 0.85, "fid": 8.13, "is": 124.5},
    {"method": "B", "steps": 100, "xi": None, "fid": 7.58, "is": math.nan},
    {"method": "C", "steps": 100, "xi": None, "fid": 9.0, "is": 100.0},
]


def measured(method: str, fid: float, *, steps=100, reach=0.2, apart=(), group="one", **more) -> dict:
    spread = {"fid_sd": 0.05, "fid_low": fid - 0.1, "fid_high": fid + 0.1, "fid_reach": reach}
    if reach != reach:
        spread = dict.fromkeys(spread, math.nan)
    return {"method": method, "steps": steps, "fid": fid, **spread, "apart": list(apart), "group": group, **more}


def apart_by(distance: float):
    """Two values are apart when they differ by more than `distance`."""

    def gap(metric, one, other):
        change = one[metric] - other[metric]
        return change - distance, change + distance

    return gap


def table(*rows: dict, gap=None) -> pd.DataFrame:
    return compose(COLUMNS, PUBLISHED, list(rows), gap or apart_by(0.5))


def shown(*rows: dict) -> Shown:
    return show(COLUMNS, table(*rows))


def test_rows_are_the_papers_in_its_order_then_the_studys_own():
    found = table(measured("Z", 1.0), measured("B", 7.6), measured("B", 7.0, steps=50))
    assert found["method"].tolist() == ["A", "B", "C", "Z", "B"]
    assert found["in_paper"].tolist() == [True, True, True, False, False]
    assert found["verdict"].tolist() == [
        "not run",
        "reproduced",
        "not run",
        *["not comparable: the paper has no such row"] * 2,
    ]
    # A run that is deleted takes its numbers with it, and nothing stands in their place.
    assert found.loc[0, ["fid", "fid_sd", "fid_difference"]].isna().all()


def test_of_two_measured_for_one_row_the_one_least_apart_takes_it():
    found = table(measured("B", 7.0, apart=["xi 0.6, not 0.7"]), measured("B", 7.6))
    assert found.loc[1, "fid"] == 7.6
    assert found.loc[3, "fid"] == 7.0


@pytest.mark.parametrize(
    "theirs, value, reach, apart, told",
    [
        (7.58, 7.70, 0.2, [], "reproduced"),
        (7.58, 7.79, 0.2, [], "not reproduced"),
        (7.58, 7.37, 0.2, [], "not reproduced"),
        (7.58, 7.70, 0.2, ["xi 0.6, not 0.7", "seed"], "not comparable: xi 0.6, not 0.7; seed"),
        (math.nan, 7.70, 0.2, [], "not comparable: the published value is not known"),
        (7.58, math.nan, math.nan, [], "not comparable: not measured"),
        (7.58, 7.70, math.nan, [], "not comparable: no spread is known"),  # one seed
        (8.00, 8.00, 0.8, [], "reproduced"),
        (8.00, 8.00, 1.6, [], "not comparable: one more run could lie 20% away"),
    ],
)
def test_a_verdict_follows_from_the_numbers(theirs, value, reach, apart, told):
    assert verdict(theirs, value, reach, apart) == told


def test_a_row_is_reproduced_when_each_comparable_metric_is():
    one = {"is": 124.0, "is_sd": 1.0, "is_low": 122.0, "is_high": 126.0, "is_reach": 3.0}
    assert table(measured("A", 8.1, **one)).loc[0, "verdict"] == "reproduced"
    off = table(measured("A", 8.1, **{**one, "is": 130.0}))
    assert off.loc[0, "verdict"] == "not reproduced: IS"
    # Its IS was not published: FID alone decides.
    assert table(measured("B", 7.6, **one)).loc[1, "verdict"] == "reproduced"


def best(found: pd.DataFrame, metric: str = "fid") -> list[str]:
    return sorted(found.loc[found[f"{metric}_best"], "method"])


def test_the_best_is_bold_with_all_whose_difference_to_it_may_be_zero():
    rows = [measured("A", 8.0), measured("B", 8.3), measured("C", 9.0)]
    assert best(table(*rows, gap=apart_by(0.1))) == ["A"]
    assert best(table(*rows, gap=apart_by(0.5))) == ["A", "B"]
    assert best(table(*rows, gap=apart_by(5.0))) == ["A", "B", "C"]
    # A higher IS is better.
    scores = [measured(name, 8.0, **{"is": value}) for name, value in (("A", 90.0), ("B", 99.0))]
    assert best(table(*scores, gap=apart_by(1.0)), "is") == ["B"]


def test_nothing_is_best_alone_nor_without_an_interval():
    assert best(table(measured("A", 8.0))) == []
    rows = [measured("A", 8.0), measured("B", 8.3)]
    assert best(table(*rows, gap=lambda *_: (math.nan, math.nan))) == []
    # Rows of different groups do not compete.
    assert best(table(measured("A", 8.0), measured("B", 1.0, group="two"))) == []


def test_what_is_not_known_is_a_dash_and_one_seed_shows_no_spread():
    assert shown(measured("A", 8.1), measured("B", 7.6, reach=math.nan)).cells() == [
        ["A", "100", "0.85", "published", "8.13", "124.5", ""],
        ["", "", "", "measured", "8.100 ± 0.050", "–", "reproduced"],
        ["", "", "", "95 %", "8.000 to 8.200", "–", ""],
        ["", "", "", "difference", "−0.0300 [−0.230 to 0.170]", "–", ""],
        ["B", "100", "–", "published", "7.58", "–", ""],
        ["", "", "", "measured", "7.600", "–", "not comparable (1)"],
        ["", "", "", "difference", "+0.0200", "–", ""],
        ["C", "100", "–", "published", "9", "100", "not run"],
    ]


ODD = measured("50 % of A_b & {c} | <i>$x^2$~", 8.0)


def test_markdown_has_a_cell_for_each_column_and_marks_the_best():
    lines = to_markdown("Table 9", shown(measured("A", 7.0), ODD)).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {7 + 2}
    assert "**7.000 ± 0.050**" in rows[3]
    assert not any("**8.000" in row for row in rows)
    assert "1. the paper has no such row" in lines


def test_html_is_escaped_and_whole():
    class Cells(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.tags = [], []

        def handle_starttag(self, tag, attrs):
            self.tags.append(tag)
            self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    found = Cells()
    text = to_html("Table 9 <b>", shown(measured("A", 7.0), ODD))
    found.feed(text)
    assert not found.open
    assert "i" not in found.tags
    assert found.tags.count("b") == 1  # the best value
    assert found.tags.count("tbody") == found.tags.count("th") - 7 == len(shown(measured("A", 7.0), ODD).rows)


def latex_rows(text: str) -> list[str]:
    return [line for line in text.split(r"\midrule")[1].split(r"\bottomrule")[0].splitlines() if line.endswith(r"\\")]


def test_latex_has_booktabs_rules_escaped_words_and_a_cell_for_each_column():
    text = to_latex("Table 9 & more", shown(measured("A", 7.0), ODD))
    for rule in ("\\toprule", "\\midrule", "\\bottomrule"):
        assert text.count(rule) == 1
    assert r"\usepackage{booktabs}" in text
    assert r"\caption{Table 9 \& more.}" in text
    assert {len(re.split(r"(?<!\\)&", row)) for row in latex_rows(text)} == {7}
    odd = next(row for row in latex_rows(text) if row.startswith("50"))
    assert r"50 \% of A\_b \& \{c\} \textbar{} \textless{}i\textgreater{}\$x" in odd
    assert r"\textbf{7.000 $\pm$ 0.050}" in text
    # Braces and environments close, and no character is left that LaTeX does not read by itself.
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text)[::-1]
    assert text.isascii()
    tiny = shown(measured("A", -4.7e-9, reach=math.nan))
    assert tiny.cells()[1][4] == "−4.700 × 10⁻⁹"
    assert r"$-$4.700 $\times$ 10$^{-}$$^{9}$" in to_latex("T", tiny)


def compiled(text: str, folder) -> str:
    """What LaTeX says of a document. Wide tables would leave the page: none may."""
    (folder / "table.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "table.pdf").read_bytes().startswith(b"%PDF")
    return done.stdout


LATEX = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX with booktabs")
AWKWARD = "50 % of A_b & {c} | <i>$x^2$~ #1 \\ “Zoë”, Łódź, ξ ≥ 1, 数字, Ж"


@LATEX
def test_latex_compiles_as_it_is_whatever_arms_are_called(tmp_path):
    assert "Missing character" not in compiled(
        to_latex(AWKWARD, shown(measured("A", 7.0), measured(AWKWARD, 8.0))), tmp_path
    )
    letters = "".join(map(chr, [*range(0x20, 0x7F), *range(0xA1, 0x180)]))
    compiled(to_latex("T", shown(measured(letters, 8.0))), tmp_path)


@LATEX
@pytest.mark.parametrize("name", list(registry.PAPER_TABLES))
def test_every_table_of_a_study_compiles_and_fits_its_page(digits, tmp_path, name):
    said = compiled((digits / f"paper/{name}.tex").read_text(), tmp_path)
    wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide", said)]
    assert not [points for points in wide if points > 1], wide


def finished_imagenet(folder, seeds: list[int]):
    """The paper's protocol with two arms; only the tables that are asked for."""
    study = imagenet()
    study = study.model_copy(update={"training": study.training.model_copy(update={"seeds": seeds})})
    results = synthetic.make(study, folder)
    for name in ("table2", "runs"):
        make_table(study, results, name, results / f"tables/{name}.csv")
    return Results(study, results, synthetic.PUBLISHED, tables=registry.tables(study))


def test_table2_of_the_papers_protocol_stands_beside_the_papers(tmp_path):
    results = finished_imagenet(tmp_path, [0, 1, 2])
    rows = TABLES["table2"].make(results, "table2").set_index(["model", "method", "iterations"])
    row, ours = rows.loc[("SiT-XL/2", "REPA", 400_000)], results.table("table2")
    ours = ours[(ours["arm"] == "repa") & (ours["step"] == 400_000)].iloc[0]
    assert row["published_fid"] == 8.13
    assert row["fid"] == ours["fid"]
    # The synthetic FID is near 1: far from the paper's, by more than three seeds scatter.
    assert row["fid_verdict"] == "not reproduced"
    reach = 4.302653 * ours["fid_sd"] * math.sqrt(4 / 3)  # Student's t of two degrees of freedom
    assert row["fid_difference_high"] - row["fid_difference"] == pytest.approx(reach, rel=1e-5)
    assert rows.loc[("SiT-B/2", "REPA", 100_000), "verdict"] == "not run"
    assert np.isnan(rows.loc[("SiT-B/2", "REPA", 100_000), "fid"])


def test_a_deleted_run_is_not_run(tmp_path):
    results = finished_imagenet(tmp_path, [0])
    file = tmp_path / "tables/table2.csv"
    frame = pd.read_csv(file)
    assert (TABLES["table2"].make(results, "table2")["verdict"] != "not run").sum() == 4
    frame[frame["arm"] != "repa"].to_csv(file, index=False)
    rows = TABLES["table2"].make(results, "table2")
    assert rows.loc[rows["method"] == "REPA", "verdict"].unique().tolist() == ["not run"]
    kept = rows[(rows["method"] == "StableVM + VA-REPA") & (rows["iterations"] == 400_000)].iloc[0]
    assert kept["fid_verdict"] == "not comparable: no spread is known"


def test_another_protocol_says_in_what_it_differs(tmp_path):
    study = imagenet(evaluation={"extractor": "inception", "weights": "inception.pth"})
    results = synthetic.make(study, tmp_path)
    for name in ("table2", "runs"):
        make_table(study, results, name, results / f"tables/{name}.csv")
    rows = TABLES["table2"].make(Results(study, results, synthetic.PUBLISHED, tables=registry.tables(study)), "table2")
    told = rows[(rows["method"] == "REPA") & (rows["iterations"] == 400_000)].iloc[0]["verdict"]
    assert told == "not comparable: reference: the train split, not ADM's batch"


def test_every_table_of_a_study_is_written_in_every_format(digits, tmp_path, monkeypatch):
    study = synthetic.digits()
    shutil.copytree(digits / "tables", tmp_path / "tables")
    make_paper_tables(study, tmp_path)
    assert sorted(str(file.relative_to(tmp_path)) for file in (tmp_path / "paper").iterdir()) == sorted(
        registry.paper_files(study)
    )
    assert list(registry.PAPER_TABLES) == list(TABLES)
    # The same tables give the same bytes.
    first = {file.name: file.read_bytes() for file in (tmp_path / "paper").iterdir()}
    make_paper_tables(study, tmp_path)
    assert first == {file.name: file.read_bytes() for file in (tmp_path / "paper").iterdir()}
