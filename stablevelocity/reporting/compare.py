"""Compare the tables of a new run with those of another one, cell by cell: `stablevelocity compare NEW REFERENCE`."""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from stablevelocity.errors import UserError
from stablevelocity.files import read_json
from stablevelocity.reporting import registry
from stablevelocity.reporting.describe import number, signed
from stablevelocity.reporting.source import Frame

TOLERANCE = 0.05
"""Relative, for values without a spread of their own; other machines round differently and training amplifies it."""
ABSOLUTE = 1e-3
"""Values nearer to 0 than this are 0: variances far below the split point are rounding."""
SPREADS = 3.0
"""Standard deviations over seeds (of the reference or the new run, the larger) that a mean may move."""
TIMINGS = ("toy_cost",)
"""Tables of wall-clock times: shown, never judged."""


@dataclass(frozen=True)
class Cell:
    """One number of one table in both runs; `allowed` is what they may differ by (NaN: not judged)."""

    table: str
    row: str
    column: str
    new: float
    reference: float
    allowed: float

    @property
    def difference(self) -> float:
        return self.new - self.reference

    @property
    def verdict(self) -> str:
        if math.isnan(self.allowed):
            return "not judged"
        return "same" if abs(self.difference) <= self.allowed else "DIFFERS"


@dataclass(frozen=True)
class Comparison:
    """All cells that both runs have, and the rows and tables that only one of them has."""

    cells: list[Cell]
    missing: list[str]

    @property
    def agrees(self) -> bool:
        """True when every judged cell is within its tolerance and nothing of the reference is missing."""
        return not self.missing and all(cell.verdict != "DIFFERS" for cell in self.cells)

    def __str__(self) -> str:
        """A table of the cells that differ, and one line of counts per table."""
        shown = [cell for cell in self.cells if cell.verdict == "DIFFERS"]
        lines = []
        if shown:
            head = ("table", "row", "column", "new", "reference", "difference", "allowed", "verdict")
            rows = [head, *(_columns(cell) for cell in shown)]
            widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
            lines += [
                "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
            ]
            lines.append("")
        for table in dict.fromkeys(cell.table for cell in self.cells):
            verdicts = [cell.verdict for cell in self.cells if cell.table == table]
            judged = len(verdicts) - verdicts.count("not judged")
            lines.append(f"{table}: {verdicts.count('same')} of {judged} judged cells agree")
        lines += [f"only in one of the two: {name}" for name in self.missing]
        lines.append("the two runs agree" if self.agrees else "the two runs DIFFER")
        return "\n".join(lines)


def compare(new: Path, reference: Path) -> Comparison:
    """Every number of tables/*.csv in two results folders (a full run's or a reference copy's).

    A mean over seeds may move by `SPREADS` of its standard deviation over seeds, a value with an interval by the
    interval's width, any other by `TOLERANCE` of itself, and each by `ABSOLUTE`. Wall-clock times are shown and not
    judged. Raises UserError when a folder has no tables, or when the two are of different studies.
    """
    ours, theirs = _tables(new), _tables(reference)
    studies = [folder / "study.json" for folder in (new, reference)]
    names = [read_json(file)["name"] for file in studies if file.exists()]
    if len(set(names)) > 1:
        raise UserError(f"{new} and {reference}: of different studies ({', '.join(names)})")
    missing = [f"table {name}" for name in sorted(set(ours) ^ set(theirs))]
    keys = registry.table_keys()
    cells: list[Cell] = []
    for name in theirs:
        if name in ours:
            key = [column for column in keys.get(name, ()) if column in theirs[name]]
            found, lost = _compare_table(name, ours[name], theirs[name], key or _words(theirs[name]))
            cells += found
            missing += lost
    return Comparison(cells, missing)


def _tables(folder: Path) -> dict[str, Frame]:
    files = sorted((folder / "tables").glob("*.csv"))
    if not files:
        raise UserError(f"{folder}: no tables/*.csv; expected the folder of a finished study or its reference copy")
    return {file.stem: pd.read_csv(file) for file in files}


def _words(table: Frame) -> list[str]:
    """Columns of text: the key of a table that the registry does not know."""
    return [column for column in table if not pd.api.types.is_numeric_dtype(table[column])]


def _compare_table(name: str, new: Frame, reference: Frame, key: list[str]) -> tuple[list[Cell], list[str]]:
    ours, theirs = _by_key(new, key), _by_key(reference, key)
    missing = [f"{name}, row {row}" for row in sorted(set(ours) ^ set(theirs))]
    columns = [
        column
        for column in reference
        if column in new
        and column not in key
        and _is_value(column)
        and pd.api.types.is_numeric_dtype(reference[column])
    ]
    cells = []
    for row in theirs:
        if row in ours:
            for column in columns:
                cell = _cell(name, row, column, ours[row], theirs[row])
                both_unknown = math.isnan(cell.new) and math.isnan(cell.reference)
                both_infinite = cell.new == cell.reference and math.isinf(cell.new)
                if not both_unknown and not both_infinite:
                    cells.append(cell)
    return cells, missing


def _by_key(table: Frame, key: list[str]) -> dict[str, dict]:
    return {", ".join(_plain(row[column]) for column in key): row for row in table.to_dict("records")}


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_value(column: str) -> bool:
    """Not a bound, a spread or a difference of other columns, and not the paper's."""
    ends = ("_sd", "_low", "_high", "_ratio", "_step", "_grid")
    derived = ("low", "high", "q15", "q85", "relative", "freedom")
    return not column.endswith(ends) and column not in derived and "published" not in column


def _cell(table: str, row: str, column: str, new: dict, reference: dict) -> Cell:
    ours, theirs = float(new[column]), float(reference[column])
    return Cell(table, row, column, ours, theirs, math.nan if table in TIMINGS else _allowed(column, new, reference))


def _allowed(column: str, new: dict, reference: dict) -> float:
    """What a cell may differ by: from its spread over seeds, else from its interval, else relative."""
    floor = max(ABSOLUTE, TOLERANCE * abs(float(reference[column])))
    spreads = [float(row.get(f"{column}_sd", math.nan)) for row in (new, reference)]
    known = [spread for spread in spreads if not math.isnan(spread)]
    if known:
        return max(floor, SPREADS * max(known))
    stem = {"difference": "", "value": "", "split_point": "split_"}.get(column, f"{column}_")
    widths = [
        float(row[f"{stem}high"]) - float(row[f"{stem}low"])
        for row in (new, reference)
        if f"{stem}high" in row and f"{stem}low" in row
    ]
    widths = [width for width in widths if not math.isnan(width)]
    return max(floor, max(widths)) if widths else floor


def _columns(cell: Cell) -> tuple[str, ...]:
    return (
        cell.table,
        cell.row,
        cell.column,
        number(cell.new, 4),
        number(cell.reference, 4),
        signed(cell.difference, 2),
        number(cell.allowed, 2),
        cell.verdict,
    )
