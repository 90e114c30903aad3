"""Tables of one study by two versions of the code, cell by cell, on one machine.

python -m benchmarks.same_tables NEW OLD     folders results/<study>; exit status 1 for a difference without a reason

`stablevelocity compare` asks whether two results agree within the seeds' spread; this asks for the same text in each
cell of the old tables, and names why where another is meant.
"""

import argparse
import re
import sys
from pathlib import Path

import pandas as pd

ROUNDING = 1e-12  # relative; below it only the last digits differ
# What tells the rows of a table apart; columns that a table has not do not matter.
KEYS = ["run", "arm", "against", "base", "comparison", "metric", "seed", "step", "sampler", "objective", "source"]
KEYS += ["dimension", "t", "references", "solver", "xi", "low_steps", "steps", "nfe", "low_regime", "quantity"]
# (table, column, row's metric or quantity or solver, why); the first that fits counts.
MEANT = [
    (r"toy_cost|conditions", r"seconds.*|value|low|high|how", "", "seconds and times of day"),
    (r".*", r"s?fid(_\w+)?_(low|high)", "", "interval of FID by the linearised bootstrap"),
    (r"runs|conditions", r"low|high", r"s?fid.*", "interval of FID by the linearised bootstrap"),
    (
        r"differences",
        r"low|high|freedom|paired_\w+",
        "",
        "interval of a difference: the draw of the samples counts too",
    ),
    (
        r"few_step|stablevs",
        r"(psnr|ssim|feature_distance|fid)(_\w+)?",
        r"euler",
        "Euler's control is StableVS, drawn once",
    ),
    (r".*", r"label|how|note|reference|published.*", "", "words, and values of the paper"),
]


def keyed(table: pd.DataFrame) -> pd.DataFrame:
    """With an index by which rows are found again; equal keys are numbered."""
    keys = [name for name in KEYS if name in table] or list(table)[:1]
    order = table.groupby(keys, dropna=False).cumcount()
    return table.set_index([*keys, order.rename("again")], drop=False)


def reason(table: str, column: str, row: pd.Series) -> str:
    """Why a cell may differ; empty when nothing says so."""
    about = str(row.get("metric", row.get("quantity", row.get("solver", ""))))
    for tables, columns, rows, why in MEANT:
        if re.fullmatch(tables, table) and re.fullmatch(columns, column) and (not rows or re.fullmatch(rows, about)):
            return why
    return ""


def close(new: str, old: str) -> bool:
    try:
        return abs(float(new) - float(old)) <= ROUNDING * max(abs(float(new)), abs(float(old)))
    except ValueError:
        return False


def main(new: Path, old: Path) -> int:
    """Print a line per table and per kind of difference; the number of cells that differ without a reason."""
    unnamed = 0
    for path in sorted((old / "tables").glob("*.csv")):
        theirs = keyed(pd.read_csv(path, dtype=str, keep_default_na=False))
        ours = new / "tables" / path.name
        if not ours.exists():
            print(f"{path.stem}: not there any more")
            unnamed += 1
            continue
        mine = keyed(pd.read_csv(ours, dtype=str, keep_default_na=False))
        same, rounded, other = 0, 0, {}
        for key, row in theirs.iterrows():
            if key not in mine.index:
                other.setdefault(("rows", ""), []).append(str(key))
                continue
            for column in theirs.columns.intersection(mine.columns):
                before, now = row[column], mine.loc[key, column]
                if now == before:
                    same += 1
                elif close(now, before):
                    rounded += 1
                else:
                    other.setdefault((column, reason(path.stem, column, row)), []).append(f"{before} -> {now}")
        new_columns = ", ".join(mine.columns.difference(theirs.columns))
        gone = theirs.columns.difference(mine.columns)
        print(
            f"{path.stem}: {same} of {theirs.size} cells the same text, {rounded} but for the last digits, "
            f"{len(mine.index.difference(theirs.index))} new rows"
            + (f", new columns {new_columns}" if new_columns else "")
        )
        for column in gone:
            other.setdefault((column, ""), []).append("column is gone")
        for (column, why), cells in other.items():
            print(f"    {column}: {len(cells)} differ, such as {cells[0]}: {why or 'NO REASON KNOWN'}")
            unnamed += 0 if why else len(cells)
    print(f"{unnamed} cells differ without a reason")
    return unnamed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tables of one study by two versions of the code.")
    parser.add_argument("new", type=Path)
    parser.add_argument("old", type=Path)
    given = parser.parse_args()
    sys.exit(1 if main(given.new, given.old) else 0)
