"""In the page: the way from each number of a table to the jobs behind it, every job told once."""

from pathlib import Path
from typing import Any

from stablevelocity.reporting.results import DataFrame
from stablevelocity.reporting.spec import LAYOUT
from stablevelocity.reporting.trace import Job, read_jobs, sources


class Origins:
    """Places in the page that numbers lead to, collected while the tables are shown."""

    def __init__(self, folder: Path):
        self.folder, self.all = folder, read_jobs(folder)
        self.numbers = {name: number for number, name in enumerate(self.all)}
        self.groups: dict[tuple[str, ...], str] = {}
        self._known: dict[Any, tuple[str, ...]] = {}

    def anchor(self, table: str, row: DataFrame, column: str) -> str:
        """The id of the place that tells where a number was computed from; empty where no record does."""
        own = self.all.made_by.get(LAYOUT.table(table))
        if own is None or column.startswith("published"):
            return ""
        # The columns of a row have the same sources, but for differences.
        key = table, "_from_" in column, *(str(value) for value in row.values() if isinstance(value, (str, int, float)))
        if key not in self._known:
            self._known[key] = tuple(
                file for file in sources(self.folder, own, row, column) if file in self.all.made_by
            )
        files = self._known[key]
        if len(files) == 1:
            return self.place(self.all.made_by[files[0]])
        return self.groups.setdefault(files, f"f{len(self.groups)}") if files else ""

    def place(self, job: Job) -> str:
        return f"j{self.numbers[job.id]}"

    def jobs(self) -> list[Job]:
        """Those behind all numbers that were shown, each before those that made its inputs."""
        files = {file for known in self._known.values() for file in known}
        return self.all.chain(sorted(files))
