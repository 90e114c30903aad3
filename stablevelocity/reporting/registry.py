"""The sections of the report in their order, and what a study has of them; importable without pandas and torch."""

from typing import Any

from stablevelocity.reporting.sections import conditions, exact_flow, pretrained, sampling, toy, training, variance
from stablevelocity.reporting.spec import LAYOUT, Product, Section
from stablevelocity.study import Study

SECTIONS: tuple[Section, ...] = (
    variance.SECTION,
    toy.SECTION,
    training.SECTION,
    sampling.SECTION,
    exact_flow.SECTION,
    pretrained.SECTION,
    conditions.SECTION,
)


def sections(study: Study) -> list[Section]:
    """The sections that this study has; without arms it is a study of pretrained models only."""
    return [section for section in (SECTIONS if study.arms else (pretrained.SECTION,)) if section.present(study)]


def tables(study: Study) -> dict[str, Product]:
    """Tables of the study by name."""
    return {table.name: table for section in sections(study) for table in section.tables if table.inputs(study)}


PAPER_TABLES = ("table1", "table2", "table3", "ablations", "table4", "table5", "pretrained_xi")
FORMATS = ("csv", "md", "tex", "html")


def paper_tables(study: Study) -> list[str]:
    """Tables of the paper that the study has numbers for, by the table that these stand in."""
    return [name for name in PAPER_TABLES if name in tables(study)]


def paper_files(study: Study) -> list[str]:
    """Those tables in every format, relative to results/<study>."""
    return [LAYOUT.paper_table(name, suffix) for name in paper_tables(study) for suffix in FORMATS]


def figures(study: Study) -> dict[str, Product]:
    """Figures of the study by name."""
    return {figure.name: figure for section in sections(study) for figure in section.figures if figure.inputs(study)}


def settings_of(study: Study, product: Product) -> list[Any]:
    """The parts of the study that a table or figure depends on besides its inputs."""
    return next(s.settings(study) for s in SECTIONS if product in (*s.tables, *s.figures))


def files(study: Study) -> list[str]:
    """Results that belong to the page as they are, relative to results/<study>."""
    return [name for section in sections(study) for name in section.files(study)]


def table_keys() -> dict[str, tuple[str, ...]]:
    """Of every table that any study can have: the columns that name its rows."""
    return {table.name: table.keys for section in SECTIONS for table in section.tables}


def claims_inputs(study: Study) -> list[str]:
    """What claims.json is computed from, relative to results/<study>."""
    return [LAYOUT.table(name) for name in tables(study)]


def page_inputs(study: Study) -> list[str]:
    """What report.html is made from, relative to results/<study>."""
    drawn = [LAYOUT.figure(name, suffix) for name in figures(study) for suffix in ("svg", "column.png")]
    return [*claims_inputs(study), *drawn, *files(study), LAYOUT.claims]


def claims_modules() -> list[str]:
    """Modules below `stablevelocity` whose code decides what claims.json holds."""
    return ["reporting.claims", *(section.module("claims") for section in SECTIONS if section.has_claims)]


def page_modules() -> list[str]:
    """Modules below `stablevelocity` whose code decides what report.html says, given tables, figures and claims."""
    return ["reporting.page", *(section.module("view") for section in SECTIONS if section.has_view)]
