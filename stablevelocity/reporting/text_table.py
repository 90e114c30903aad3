"""Tables with their numbers as text, the last step from a data frame to what a reader sees."""

import functools
from dataclasses import dataclass, field
from typing import Any

import yaml

from stablevelocity.reporting import format
from stablevelocity.reporting.origins import Origins
from stablevelocity.reporting.results import DataFrame
from stablevelocity.reporting.templates import TEMPLATES


@dataclass(frozen=True)
class TextTable:
    """Cells as they are shown. The first `words` columns hold words, the rest numbers.

    `published` are the columns, by index, with the paper's values; `is_published` is a table of the paper alone.
    `folded` tables open on a click. `name` is that of the file of a table of the study, `arms` the arm of each row,
    `origins` the places in the page that tell where each number comes from.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    words: int
    published: frozenset[int] = frozenset()
    is_published: bool = False
    folded: bool = False
    name: str = ""
    arms: tuple[str, ...] = ()
    origins: list[list[str]] = field(default_factory=list)


@functools.cache
def _entries() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((TEMPLATES / "tables.yaml").read_text())


def text_table(name: str, frame: DataFrame, *facts: Any, origins: Origins | None = None) -> TextTable:
    """`frame` as templates/tables.yaml shows the table `name`; `facts` fill its title."""
    entry = _entries()[name]
    columns = [column for one in entry["columns"] for column in _matching(*one, frame=frame)]
    columns = [one for one in columns if frame.empty or set(one[1].split()) <= set(frame)]
    rows = frame.sort_values(entry["sort"]) if "sort" in entry else frame
    cells = [
        [_cell(form, *(row[source] for source in sources.split())) for _, sources, form in columns]
        for row in rows.to_dict("records")
    ]
    words = next((place for place, (_, _, form) in enumerate(columns) if form not in format.WORDS), len(columns))
    published = frozenset(place for place, (_, sources, _) in enumerate(columns) if sources.startswith("published"))
    places = []
    if origins:
        for row in rows.to_dict("records"):
            of = [(sources.split()[0], form in format.WORDS) for _, sources, form in columns]
            places.append(["" if is_word else origins.anchor(name, row, source) for source, is_word in of])
    return TextTable(
        entry["title"].format(*facts),
        [title for title, _, _ in columns],
        cells,
        words,
        published,
        is_published=entry.get("is_published", False),
        folded=entry.get("folded", False),
        name=name,
        arms=tuple(rows["arm"]) if "arm" in rows else (),
        origins=places,
    )


def _cell(form: str, *values: Any) -> str:
    """`form`: a function of format.py and its digits, such as "signed 2"."""
    name, *digits = form.split()
    return format.typeset(getattr(format, name)(*values, *map(int, digits)))


def _matching(title: str, sources: str, form: str = "number", *, frame: DataFrame) -> list[tuple[str, str, str]]:
    """The column itself; for one such as score_*, each further column of the frame that starts so."""
    if not sources.endswith("*"):
        return [(title, sources, form)]
    start = sources[:-1]
    matching = [name for name in frame if name.startswith(start) and name != f"{start}error"]
    return [(name.removeprefix(start).replace("_", " "), name, form) for name in matching]
