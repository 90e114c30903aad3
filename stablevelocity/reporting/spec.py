"""What a section of the report consists of: its tables and figures, with the files that each is made from.

No pandas, matplotlib or torch here: Snakemake imports it on every start to declare each rule's exact inputs.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from stablevelocity.study import Study
from stablevelocity.study.layout import Layout

LAYOUT = Layout()
"""Paths relative to results/<study>."""
Inputs = Callable[[Study], list[str]]


def training_images(study: Study) -> list[str]:
    """The images of the train split as a `ShardSet`."""
    shards = [LAYOUT.image_shard("train", shard) for shard in range(study.images.shards)]
    return [LAYOUT.image_manifest("train"), *shards]


@dataclass(frozen=True)
class Product:
    """A table or figure: the function `name` of `module`, below `stablevelocity`, makes it from a `Results`.

    `published` are files of config/published, and `keys` the columns that name a row of a table. `inputs(study)` are
    the files of results/<study> that it reads; when there are none, this study has no such product.
    """

    name: str
    inputs: Inputs
    published: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    module: str = ""

    def load(self) -> Callable[..., Any]:
        return getattr(importlib.import_module(f"stablevelocity.{self.module}"), self.name)


@dataclass(frozen=True)
class Section:
    """A chapter of the report: the folder sections/<name> and the text templates/<name>.html.j2.

    Its tables are functions of tables.py, its figures of figures.py, unless they name another part of the folder.
    `claims.claims(results)` gives its claims, `view.view(results)` the facts that its text needs besides the study and
    the tables. `files(study)` are results that belong to the page as they are, such as an animation.
    `settings(study)` are the parts of the study that its tables and figures read: a change of any other redraws none of
    them. A study without any product of a section does not have the section.
    """

    name: str
    title: str
    tables: tuple[Product, ...] = ()
    figures: tuple[Product, ...] = ()
    has_claims: bool = True
    has_view: bool = True
    files: Inputs = field(default=lambda study: [])
    settings: Callable[[Study], list[Any]] = field(default=lambda study: [study])

    def __post_init__(self) -> None:
        for kind in ("tables", "figures"):
            products = [replace(one, module=self.module(one.module or kind)) for one in getattr(self, kind)]
            object.__setattr__(self, kind, tuple(products))

    def present(self, study: Study) -> bool:
        return any(product.inputs(study) for product in (*self.tables, *self.figures))

    def module(self, part: str) -> str:
        """The module below `stablevelocity` of its `part`, view or claims."""
        return f"reporting.sections.{self.name}.{part}"

    def load(self, part: str) -> Callable[..., Any]:
        return getattr(importlib.import_module(f"stablevelocity.{self.module(part)}"), part)
