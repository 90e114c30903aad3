"""A table of the paper as Markdown, LaTeX and HTML, each from the one frame that `paper.compose` gives."""

import re
import unicodedata
from collections.abc import Callable
from typing import Any, NamedTuple

from stablevelocity.reporting.format import UNKNOWN, interval, plus_minus, signed, typeset
from stablevelocity.reporting.paper import NOT_COMPARABLE, NOT_RUN, Columns, Row
from stablevelocity.reporting.results import DataFrame
from stablevelocity.reporting.templates import environment

DIGITS = 4
RULE = (
    "± is the standard deviation over seeds, 95 % the interval of the mean. The difference is measured minus "
    "published; in brackets where that of one more run would lie. Reproduced: these hold 0. Bold: the best of the rows "
    "that were measured alike, and those whose difference to it may be 0."
)
SYMBOLS = str.maketrans(
    {one: f"\\{one}" for one in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {"±": r"$\pm$", "ξ": r"$\xi$", "−": "$-$", "–": "--", "≥": r"$\ge$", "≤": r"$\le$", "√": r"$\surd$"}
    | {"×": r"$\times$", "“": "``", "”": "''"}
    | {raised: f"$^{{{plain}}}$" for raised, plain in zip("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789", strict=True)}
)
"""What LaTeX does not read as it is."""
LETTERS = "ßæÆøØœŒłŁı"
"""What LaTeX's first font has besides ASCII and accents. Of another character, as in a name, the number is shown."""
DOCUMENT = r"""\documentclass{article}
\usepackage[a4paper,landscape,margin=12mm]{geometry}
\usepackage{booktabs}
\setlength{\tabcolsep}{3.5pt}
\begin{document}
\scriptsize
%s
\noindent %s
\end{document}
"""
TABLE = r"""\begin{table}[ht!]
\centering\scriptsize
\caption{%s}\smallskip
\begin{tabular}{%s}
\toprule
%s \\
\midrule
%s \\
\bottomrule
\end{tabular}
\end{table}
"""
LINES_OF_A_PAGE = 36


class Line(NamedTuple):
    """Of what `kind` the numbers are, which of them are best, and what is said of them."""

    kind: str
    numbers: list[str]
    best: list[bool]
    verdict: str


class Shown(NamedTuple):
    """Titles of the columns; rows, each with the words that name it and its lines; notes that verdicts number."""

    titles: list[str]
    rows: list[tuple[list[str], list[Line]]]
    notes: list[str]

    def cells(self, escape: Callable[[str], str] = str, bold: str = "{}") -> list[list[str]]:
        """A row of cells for each line; the first line of a row alone names it."""
        made = []
        for words, lines in self.rows:
            for line in lines:
                numbers = map(escape, line.numbers)
                marked = [bold.format(one) if best else one for one, best in zip(numbers, line.best, strict=True)]
                made.append([*map(escape, words), escape(line.kind), *marked, escape(line.verdict)])
                words = [""] * len(words)
        return made


def show(columns: Columns, table: DataFrame) -> Shown:
    """Up to four lines for a row: published, measured, 95 %, difference."""
    named, notes = {**columns.keys, **columns.shown}, []
    rows = [([_word(row[column]) for column in named], _lines(columns, row, notes)) for row in table.to_dict("records")]
    return Shown([*named.values(), "Line", *columns.metrics.values(), "Verdict"], rows, notes)


def _lines(columns: Columns, row: Row, notes: list[str]) -> list[Line]:
    metrics, plain, told = columns.metrics, [False] * len(columns.metrics), _noted(row["verdict"], notes)
    lines = []
    if row["in_paper"]:
        numbers = [_word(row[f"published_{one}"]) for one in metrics]
        lines.append(Line("published", numbers, plain, told if row["verdict"] == NOT_RUN else ""))
    if row["verdict"] == NOT_RUN:
        return lines
    numbers = [plus_minus(row[one], row[f"{one}_sd"], DIGITS) for one in metrics]
    lines.append(Line("measured", numbers, [row[f"{one}_best"] for one in metrics], told))
    if any(row[f"{one}_low"] == row[f"{one}_low"] for one in metrics):
        numbers = [interval(row[f"{one}_low"], row[f"{one}_high"], DIGITS) for one in metrics]
        lines.append(Line("95 %", numbers, plain, ""))
    if row["in_paper"]:
        lines.append(Line("difference", [_difference(row, one) for one in metrics], plain, ""))
    return [line._replace(numbers=[*map(typeset, line.numbers)]) for line in lines]


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


def to_markdown(title: str, shown: Shown) -> str:
    rows = [shown.titles, ["---"] * len(shown.titles), *shown.cells(bold="**{}**")]
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    told = [f"{place}. {note}" for place, note in enumerate(shown.notes, 1)]
    return "\n".join([f"**{title}.**", "", *lines, "", RULE, "", *told]).rstrip() + "\n"


def to_latex(title: str, shown: Shown) -> str:
    """A document that compiles as it is, with booktabs' rules and a table for each page, to take out into a paper."""
    names = len(shown.rows[0][0]) + 1
    kinds = "l" * names + "r" * (len(shown.titles) - names - 1) + "l"
    pages: list[list[Any]] = [[]]
    for row in shown.rows:
        if sum(len(lines) for _, lines in [*pages[-1], row]) > LINES_OF_A_PAGE:
            pages.append([])
        pages[-1].append(row)
    tables = []
    for place, page in enumerate(pages):
        cells = shown._replace(rows=page).cells(_latex, r"\textbf{{{}}}")
        # A little space before each row of the paper: its first line alone names it.
        lines = [
            ("\\addlinespace\n" if row[0] and number else "") + " & ".join(row) for number, row in enumerate(cells)
        ]
        head = " & ".join(map(_latex, shown.titles))
        # LaTeX numbers tables itself.
        named = re.sub(r"^(Table \d)\. (.*)", r"\2 (\1 of the paper)", title)
        caption = _latex(f"{named}{', continued' if place else ''}.")
        tables.append(TABLE % (caption, kinds, head, " \\\\\n".join(lines)))
    told = [RULE, *(f"({place}) {note}" for place, note in enumerate(shown.notes, 1))]
    return DOCUMENT % ("".join(tables), "\n\n\\noindent ".join(map(_latex, told)))


def _latex(text: str) -> str:
    def is_known(one: str) -> bool:
        letter, *accents = unicodedata.normalize("NFD", one)
        return (letter.isascii() and "\N{COMBINING OGONEK}" not in accents) or one in LETTERS or ord(one) in SYMBOLS

    return "".join(one if is_known(one) else f"[U+{ord(one):04X}]" for one in text).translate(SYMBOLS)


def to_html(title: str, shown: Shown) -> str:
    """A table element with its notes, to put into a page."""
    return environment(escape=True).get_template("paper_table.html.j2").render(shown._asdict(), title=title, rule=RULE)


FORMATS: dict[str, Callable[[str, Shown], str]] = {"md": to_markdown, "tex": to_latex, "html": to_html}
