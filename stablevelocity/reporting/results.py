"""A study and its results, as data frames."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from stablevelocity.errors import UserError
from stablevelocity.files import read_json
from stablevelocity.reporting.spec import LAYOUT
from stablevelocity.study import Study
from stablevelocity.study.layout import published_folder

DataFrame: TypeAlias = Any
Series: TypeAlias = Any
"""pandas' own. pandas ships no stubs and pyright misreads its indexing, so frames and their rows are not checked."""


@dataclass(frozen=True)
class Results:
    """A study, its folder results/<study>, the folder of the paper's values, and the names of its finished tables."""

    study: Study
    folder: Path
    published_folder: Path = field(default_factory=published_folder)
    tables: Collection[str] = ()

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def csv(self, name: str) -> DataFrame:
        """A CSV by its path relative to the folder. Raises UserError when it is missing or empty."""
        return _read_csv(self.folder / name)

    def json(self, name: str) -> dict[str, Any]:
        if not self.has(name):
            raise UserError(f"{self.folder / name}: no such file; the workflow makes it")
        return read_json(self.folder / name)

    def table(self, name: str) -> DataFrame:
        """A finished table by its name, None when it is not one of `tables`."""
        return self.csv(LAYOUT.table(name)) if name in self.tables else None

    def published(self, name: str) -> DataFrame:
        """Published values. An empty cell is a value that is not known, and stays NaN."""
        return _read_csv(self.published_folder / name)


def _read_csv(path: Path) -> DataFrame:
    if not path.exists():
        raise UserError(f"{path}: no such file; the workflow makes it, or config/published lies elsewhere")
    try:
        return pd.read_csv(path)
    except pd.errors.EmptyDataError:
        raise UserError(f"{path}: the file is empty; delete it and run the workflow again") from None
