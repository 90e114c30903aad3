"""The files of one study's results, as data frames."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from stablevelocity.errors import UserError
from stablevelocity.files import read_json
from stablevelocity.study import Study

Frame: TypeAlias = Any
"""A pandas DataFrame or Series. pandas ships no stubs and pyright misreads its indexing, so frames are not checked."""

PUBLISHED = Path("config/published")


@dataclass(frozen=True)
class Source:
    """A study, its folder results/<study>, and the folder of the paper's published values."""

    study: Study
    results: Path
    published: Path = PUBLISHED

    def csv(self, name: str) -> Frame:
        """A CSV of the results by its path relative to them. Raises UserError when it is absent."""
        return _read_csv(self.results / name)

    def has(self, name: str) -> bool:
        return (self.results / name).exists()

    def json(self, name: str) -> dict[str, Any]:
        path = self.results / name
        if not path.exists():
            raise UserError(f"{path}: no such file; the workflow makes it")
        return read_json(path)

    def table(self, name: str) -> Frame | None:
        """A finished table by its name, None when the study has none."""
        path = self.results / "tables" / f"{name}.csv"
        return _read_csv(path) if path.exists() else None

    def published_csv(self, name: str) -> Frame:
        """Published values. An empty cell is a value that is not known, and stays NaN."""
        return _read_csv(self.published / name)


def _read_csv(path: Path) -> Frame:
    if not path.exists():
        raise UserError(f"{path}: no such file; the workflow makes it, or config/published lies elsewhere")
    try:
        frame = pd.read_csv(path)
    except pd.errors.EmptyDataError:
        raise UserError(f"{path}: the file is empty; delete it and run the workflow again") from None
    # "none" is a value of `low_regime`; pandas reads only empty cells and its own names of NaN as missing.
    return frame
