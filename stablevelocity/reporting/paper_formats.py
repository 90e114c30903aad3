"""A table of the paper as Markdown, LaTeX and HTML, each from the one frame that `paper.compose` gives."""

import html
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from stablevelocity.reporting.format import UNKNOWN, interval, plus_minus, signed, typeset
from stablevelocity.reporting.paper import NOT_COMPARABLE, NOT_RUN, Columns, Row
from stablevelocity.reporting.results import DataFrame

DIGITS = 4
RULE = (
    "± is the standard deviation over seeds, 95 % the interval of the mean. The difference is measured minus "
    "published; in brackets where that of one more run would lie. Reproduced: these hold 0. Bold: the best of the rows "
    "that were measured alike, and those whose difference to it may be 0."
)
SYMBOLS = str.maketrans(
    {
        "±": r"$\pm$",
        "ξ": r"$\xi$",
        "−": "$-$",
        "–": "--",
        "≥": r"$\ge$",
        "≤": r"$\le$",
        "√": r"$\surd$",
        "×": r"$\times$",
    }
    | {raised: f"$^{{{plain}}}$" for raised, plain in zip("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789", strict=True)}
)
"""What LaTeX does not read as it is."""
DOCUMENT = r"""\documentclass{article}
\usepackage[landscape,margin=15mm]{geometry}
\usepackage{booktabs}
\begin{document}
%s\end{document}
"""


class Shown(NamedTuple):
    """Cells as text, which of them are bold, and the notes that verdicts refer to by number."""

    cells: DataFrame
    bold: np.ndarray
    notes: list[str]


def show(columns: Columns, table: DataFrame) -> Shown:
    """Up to four lines for a row: published, measured, 95 %, difference."""
    named = {**columns.keys, **columns.shown}
    lines, bold, notes = [], [], []
    for row in table.to_dict("records"):
        words = [_word(row[column]) for column in named]
        for kind, numbers in _numbers(columns, row):
            told = _noted(row["verdict"], notes) if kind == "measured" or row["verdict"] == NOT_RUN else ""
            lines.append([*words, kind, *map(typeset, numbers), told])
            best = [kind == "measured" and row[f"{metric}_best"] for metric in columns.metrics]
            bold.append([*[False] * (len(words) + 1), *best, False])
            words = [""] * len(words)
    titles = [*named.values(), "", *columns.metrics.values(), "Verdict"]
    return Shown(pd.DataFrame(lines, columns=titles), np.array(bold), notes)


def _numbers(columns: Columns, row: Row) -> list[tuple[str, list[str]]]:
    lines = [("published", [_word(row[f"published_{one}"]) for one in columns.metrics])] if row["in_paper"] else []
    if row["verdict"] == NOT_RUN:
        return lines
    lines.append(("measured", [plus_minus(row[one], row[f"{one}_sd"], DIGITS) for one in columns.metrics]))
    if any(row[f"{one}_low"] == row[f"{one}_low"] for one in columns.metrics):
        lines.append(("95 %", [interval(row[f"{one}_low"], row[f"{one}_high"], DIGITS) for one in columns.metrics]))
    if row["in_paper"]:
        lines.append(("difference", [_difference(row, one) for one in columns.metrics]))
    return lines


def _word(value: Any) -> str:
    """As it was given: a published number gets no zeros that it did not have."""
    if isinstance(value, str):
        return value
    return UNKNOWN if value is None or value != value else f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def _difference(row: Row, metric: str) -> str:
    change, low, high = (row[f"{metric}_difference{bound}"] for bound in ("", "_low", "_high"))
    return signed(change) + (f" [{interval(low, high)}]" if low == low else "")


def _noted(verdict: str, notes: list[str]) -> str:
    """A verdict; why a row is not comparable stands in a note."""
    told, _, reason = verdict.partition(": ")
    if told != NOT_COMPARABLE:
        return verdict
    if reason not in notes:
        notes.append(reason)
    return f"{told} ({notes.index(reason) + 1})"


def to_markdown(title: str, columns: Columns, table: DataFrame) -> str:
    cells, bold, notes = show(columns, table)
    marked = np.where(bold, "**" + cells + "**", cells)
    rows = [list(cells), ["---"] * len(cells.columns), *marked.tolist()]
    lines = ["| " + " | ".join(str(cell).replace("|", r"\|") for cell in row) + " |" for row in rows]
    told = [f"{place}. {note}" for place, note in enumerate(notes, 1)]
    return "\n".join([f"**{title}.**", "", *lines, "", RULE, "", *told]).rstrip() + "\n"


def to_latex(title: str, columns: Columns, table: DataFrame) -> str:
    """A document of one table with booktabs' rules that compiles as it is; a paper takes the table out of it."""
    cells, bold, notes = show(columns, table)
    names, numbers = len(cells.columns) - len(columns.metrics) - 1, len(columns.metrics)
    text = _styled(cells, bold, "latex").to_latex(
        hrules=True, convert_css=True, column_format="l" * names + "r" * numbers + "l"
    )
    head, rule, rows = text.partition("\\midrule\n")
    # A little space before each row of the paper: its first line alone names it.
    spaced = [f"\\addlinespace\n{row}" if not row.startswith((" ", "\\")) else row for row in rows.splitlines()]
    told = "".join(f"\\par ({place}) {_latex(note)}\n" for place, note in enumerate(notes, 1))
    body = "\n".join([head + rule + spaced[0].removeprefix("\\addlinespace\n"), *spaced[1:]])
    caption, rule_text = _latex(f"{title}."), _latex(RULE)
    return DOCUMENT % (
        f"\\begin{{table}}\n\\centering\\scriptsize\n\\caption{{{caption}}}\n{body.translate(SYMBOLS)}\n"
        f"\\par\\medskip\\raggedright {rule_text}\n{told}\\end{{table}}\n"
    )


def to_html(title: str, columns: Columns, table: DataFrame) -> str:
    """A table element with its notes, to put into a page."""
    cells, bold, notes = show(columns, table)
    style = _styled(cells, bold, "html").set_caption(html.escape(title)).set_uuid(title.split(".")[0].replace(" ", ""))
    told = "".join(f"<li>{html.escape(note)}</li>\n" for note in notes)
    return f"{style.to_html(cell_ids=True)}<p>{html.escape(RULE)}</p>\n<ol>\n{told}</ol>\n"


def _styled(cells: DataFrame, bold: np.ndarray, language: str):
    style = cells.style.hide(axis="index").format(escape=language).format_index(escape=language, axis=1)
    return style.apply(lambda _: np.where(bold, "font-weight: bold", ""), axis=None)


def _latex(text: str) -> str:
    escaped = "".join(r"\textbackslash{}" if one == "\\" else f"\\{one}" if one in "&%$#_{}" else one for one in text)
    return escaped.replace("~", r"\textasciitilde ").replace("^", r"\textasciicircum ").translate(SYMBOLS)


FORMATS: dict[str, Callable[[str, Columns, DataFrame], str]] = {"md": to_markdown, "tex": to_latex, "html": to_html}
