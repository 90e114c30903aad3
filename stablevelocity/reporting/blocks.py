"""The parts a page is built of. Sections give lists of them; the template lays them out."""

from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True)
class Prose:
    """A paragraph of plain text."""

    text: str
    kind: str = field(default="prose", init=False)


@dataclass(frozen=True)
class Table:
    """Cells as they are shown. The first `text_columns` columns are words, the rest numbers.

    `how` says how the numbers were made and always stands under the table. `published` tables are set apart: their
    values are the paper's; `published_columns` does the same for single columns, by index. `folded` tables open on a
    click (no script needed).
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    how: str
    text_columns: int = 1
    published: bool = False
    published_columns: tuple[int, ...] = ()
    folded: bool = False
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Figure:
    """figures/<name>.png with a caption, words for those who cannot see it, and how it was made.

    `name` may also be an image among the section's files.
    """

    name: str
    caption: str
    alt: str
    how: str
    kind: str = field(default="figure", init=False)


Block: TypeAlias = Prose | Table | Figure
