"""What a report is made of: tables and figures with the files they need, and the sections that hold them.

No pandas, matplotlib or torch here: Snakemake imports it on every start to declare each rule's exact inputs.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stablevelocity.study import Study

Inputs = Callable[[Study], list[str]]


@dataclass(frozen=True)
class Product:
    """One table or figure.

    `maker` is "module:function" below this package; the function takes a `Source` and gives a DataFrame (table) or
    draws and gives a matplotlib Figure. `inputs(study)` are the files it reads, relative to results/<study>; an
    empty list means that this study has no such product. `published` are files of config/published.
    `keys` are the columns that name a row of a table.
    """

    name: str
    maker: str
    inputs: Inputs
    published: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """The module below `stablevelocity` that makes it, for a hash of its code."""
        return "reporting." + self.maker.split(":")[0]

    def load(self) -> Callable[..., Any]:
        return load(self.maker)


@dataclass(frozen=True)
class Section:
    """One chapter of the report: its products, and the functions that judge claims and write its text.

    `text` and `claims` are "module:function" below this package. `text` takes a `page.Context` and gives blocks;
    `claims` takes a `claims.Tables` and gives a list of claims. `files(study)` are results that belong
    to the page as they are, such as an animation, relative to results/<study>. A section without any product in a study
    is left out.
    """

    name: str
    title: str
    text: str
    tables: tuple[Product, ...] = ()
    figures: tuple[Product, ...] = ()
    claims: str | None = None
    files: Inputs = field(default=lambda study: [])

    def present(self, study: Study) -> bool:
        return any(product.inputs(study) for product in (*self.tables, *self.figures))


def load(maker: str) -> Callable[..., Any]:
    """The function that "module:function" names, imported now."""
    module, function = maker.split(":")
    return getattr(importlib.import_module(f"stablevelocity.reporting.{module}"), function)
