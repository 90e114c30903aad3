"""Tables with their numbers as text, the last step from a data frame to what a reader sees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan

import pandas as pd

from stablevelocity.reporting.format import number
from stablevelocity.reporting.names import COLUMNS
from stablevelocity.reporting.results import DataFrame

Column = tuple[str, str, Callable[..., str]]
"""Title; the columns of the frame, separated by spaces, that make a cell; the function that writes them as text."""


@dataclass(frozen=True)
class TextTable:
    """Cells as they are shown. The first `words` columns hold words, the rest numbers.

    `published` are the columns, by index, with the paper's values; `is_published` is a table of the paper alone.
    `folded` tables open on a click.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    words: int
    published: frozenset[int] = frozenset()
    is_published: bool = False
    folded: bool = False


def text_table(title: str, frame: DataFrame, columns: Sequence[Column], *, folded: bool = False) -> TextTable:
    """`columns` of each row of `frame`; a column that the frame does not have is unknown."""
    rows = [
        [form(*(row.get(name, nan) for name in names.split())) for _, names, form in columns]
        for row in frame.to_dict("records")
    ]
    words = next(place for place, (_, _, form) in enumerate(columns) if form is not str)
    published = frozenset(place for place, (_, names, _) in enumerate(columns) if names.startswith("published"))
    return TextTable(title, [column for column, _, _ in columns], rows, words, published, folded=folded)


def published_table(title: str, frame: DataFrame) -> TextTable:
    """A file of config/published as it is; a value that is not known stays a dash."""
    columns = [COLUMNS.get(column, column.replace("_", " ").capitalize()) for column in frame]
    rows = [[cell if isinstance(cell, str) else number(cell, 4) for cell in row] for row in frame.to_numpy().tolist()]
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]
    return TextTable(title, columns, rows, max(1, numeric.index(True)), is_published=True, folded=True)
