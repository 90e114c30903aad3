"""Compare the tables of a new run with those of another one, cell by cell: `stablevelocity compare NEW REFERENCE`."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stablevelocity.errors import UserError
from stablevelocity.files import read_json
from stablevelocity.reporting import registry
from stablevelocity.reporting.format import number, rough, signed
from stablevelocity.reporting.results import DataFrame
from stablevelocity.reporting.templates import data_address, write_page

TOLERANCE = 0.05
"""Relative, for values without a spread of their own; other machines round differently and training amplifies it."""
ABSOLUTE = 1e-3
"""Values nearer to 0 than this are 0: variances far below the split point are rounding."""
SPREADS = 3.0
"""Standard deviations over seeds (of the reference or the new run, the larger) that a mean may move."""
UNCOMPARED = ("toy_cost", "toy_runs", "stablevs_images", "exact_flow_runs", "pretrained_pairs")
"""Tables of wall-clock times, and of the single values behind other tables: shown, never compared."""
SAME, DIFFERS, NOT_COMPARED = "same", "DIFFERS", "not compared"
DERIVED = re.compile(
    r"(_sd|_low|_high|_ratio|_step|_grid)$|^(low|high|q15|q85|relative|standard_error|freedom)$|published"
)
"""Columns that are bounds, spreads or differences of other columns, or the paper's."""
CELL = ["table", "row", "column"]
STEMS = {"difference": "", "value": "", "split_point": "split_"}
"""Where a value's interval is not <column>_low, <column>_high: what stands before low and high."""


@dataclass(frozen=True)
class Comparison:
    """All cells that both runs have, and the rows and tables that only one of them has.

    `cells`: table, row, column, new, reference, difference, allowed (NaN: not compared), verdict.
    """

    cells: DataFrame
    missing: list[str]

    @property
    def agrees(self) -> bool:
        """True when every compared cell is within its tolerance and nothing of the reference is missing."""
        return not self.missing and not (self.cells["verdict"] == DIFFERS).any()

    def __str__(self) -> str:
        """A table of the cells that differ, and one line of counts per table."""
        cells = self.cells[self.cells["verdict"] == DIFFERS]
        four = functools.partial(number, digits=4)
        forms = {"new": four, "reference": four, "difference": lambda value: signed(value, 2), "allowed": rough}
        lines = [cells.to_string(index=False, justify="left", formatters=forms), ""] if len(cells) else []
        for table, verdicts in self.cells.groupby("table", sort=False)["verdict"]:
            compared = (verdicts != NOT_COMPARED).sum()
            lines.append(f"{table}: {(verdicts == SAME).sum()} of {compared} compared cells agree")
        lines += [f"only in one of the two: {name}" for name in self.missing]
        return "\n".join([*lines, "the two runs agree" if self.agrees else "the two runs DIFFER"])


def compare(new: Path, reference: Path) -> Comparison:
    """Every number of tables/*.csv in two results folders (a full run's or a reference copy's).

    A mean over seeds may move by `SPREADS` of its standard deviation over seeds, a value with an interval by the
    interval's width, any other by `TOLERANCE` of itself, and each by `ABSOLUTE`. `UNCOMPARED` tables are shown and not
    compared. Raises UserError when a folder has no tables, or when the two are of different studies.
    """
    ours, theirs = _tables(new), _tables(reference)
    studies = [folder / "study.json" for folder in (new, reference)]
    names = [read_json(file, "name")["name"] for file in studies if file.exists()]
    if len(set(map(str, names))) > 1:
        raise UserError(f"{new} and {reference}: of different studies ({', '.join(map(str, names))})")
    missing = [f"table {name}" for name in sorted(ours.keys() ^ theirs.keys())]
    both = [name for name in theirs if name in ours]
    if not both:
        raise UserError(f"{new} and {reference}: no table with rows is in both")
    fresh, old = (pd.concat(_numbers(name, tables[name]) for name in both) for tables in (ours, theirs))
    for folder, cells in ((new, fresh), (reference, old)):
        for table, row in cells.loc[cells.duplicated(CELL), ["table", "row"]].to_numpy():
            raise UserError(f"{folder / 'tables' / table}.csv: row {row!r} stands there twice")
    for part in ("row", "column"):  # a column without values holds texts in the other, or nothing
        shown = [one if part == "row" else one[one["value"].notna()] for one in (fresh, old)]
        names = [set(one["table"] + f", {part} " + one[part]) for one in shown]
        missing += sorted(names[0] ^ names[1])
    return Comparison(_cells(fresh, old), missing)


def _tables(folder: Path) -> dict[str, DataFrame]:
    files = sorted((folder / "tables").glob("*.csv"))
    if not files:
        raise UserError(f"{folder}: no tables/*.csv; expected the folder of a finished study or its reference copy")
    tables = {file.stem: pd.read_csv(file) for file in files}
    return {name: table for name, table in tables.items() if len(table)}


def _key(name: str, table: DataFrame) -> list[str]:
    """The columns that name a row; those of text in a table that the registry does not know."""
    known = [column for column in registry.table_keys().get(name, ()) if column in table]
    return known or [column for column in table if not pd.api.types.is_numeric_dtype(table[column])]


def _numbers(name: str, table: DataFrame) -> DataFrame:
    """Each number of a table that is compared: table, row, column, value, spread over seeds, width of the interval."""
    key = _key(name, table)
    texts = table[key].map(lambda value: f"{value:g}" if isinstance(value, float) else str(value))
    rows = texts.agg(", ".join, axis="columns")
    parts = []
    for column in table.select_dtypes(["number", "bool"]).columns.difference(key, sort=False):
        if not DERIVED.search(column):
            stem = STEMS.get(column, f"{column}_")
            spread = SPREADS * table.get(f"{column}_sd", np.nan)
            width = table.get(f"{stem}high", np.nan) - table.get(f"{stem}low", np.nan)
            part = {"row": rows, "column": column, "value": table[column].astype(float), "spread": spread}
            parts.append(pd.DataFrame({"table": name, **part, "width": width}))
    none = pd.DataFrame(columns=CELL).assign(value=0.0, spread=0.0, width=0.0)
    return pd.concat(parts).sort_index(kind="stable") if parts else none


def _cells(new: DataFrame, reference: DataFrame) -> DataFrame:
    both = reference.merge(new, on=CELL, suffixes=("_reference", "_new"))
    cells = both[["table", "row", "column"]].assign(new=both["value_new"], reference=both["value_reference"])
    cells["difference"] = cells["new"] - cells["reference"]
    spread, width = (both[[f"{what}_new", f"{what}_reference"]].max(axis="columns") for what in ("spread", "width"))
    least = np.maximum(ABSOLUTE, TOLERANCE * cells["reference"].abs())
    cells["allowed"] = np.fmax(least, spread.fillna(width)).mask(cells["table"].isin(UNCOMPARED))
    within = cells["difference"].abs() <= cells["allowed"]
    cells["verdict"] = np.where(cells["allowed"].isna(), NOT_COMPARED, np.where(within, SAME, DIFFERS))
    unknown = cells["new"].isna() & cells["reference"].isna()
    infinite = np.isinf(cells["new"]) & (cells["new"] == cells["reference"])
    return cells[~unknown & ~infinite]


def write_comparison(new: Path, reference: Path, out: Path) -> Comparison:
    """Compare, and write a page of all compared cells, by table, and of the figures of both side by side."""
    comparison, folders = compare(new, reference), (new, reference)
    cells = comparison.cells.sort_values("verdict", key=lambda verdicts: verdicts != DIFFERS, kind="stable")
    drawn = {file.name for folder in folders for file in folder.glob("figures/*.png")}
    figures = {
        name: [_drawn(folder / f"figures/{name}") for folder in folders]
        for name in sorted(drawn)
        if not name.endswith(".column.png")
    }
    tables = {name: rows.to_dict("records") for name, rows in cells.groupby("table", sort=False)}
    facts = {"agrees": comparison.agrees, "missing": comparison.missing, "tables": tables, "figures": figures}
    write_page(out, "compare.html.j2", new=str(new), reference=str(reference), **facts)
    return comparison


def _drawn(figure: Path) -> str | None:
    return data_address(figure) if figure.exists() else None
