"""The sections of the report, in the order they are read; the one place that lists them.

A new section is a folder in `sections/` whose `__init__` holds a `SECTION`, and one line here. Importable without
pandas, matplotlib and torch.
"""

from stablevelocity.reporting.products import Product, Section
from stablevelocity.reporting.sections import conditions, pretrained, sampling, toy, training, variance
from stablevelocity.study import Study

SECTIONS: tuple[Section, ...] = (
    variance.SECTION,
    toy.SECTION,
    training.SECTION,
    sampling.SECTION,
    pretrained.SECTION,
    conditions.SECTION,
)


def _of(study: Study) -> tuple[Section, ...]:
    """A study without training arms is one of pretrained models only."""
    return SECTIONS if study.arms else (pretrained.SECTION,)


def sections(study: Study) -> list[Section]:
    """The sections that this study has."""
    return [section for section in _of(study) if section.present(study)]


def tables(study: Study) -> dict[str, Product]:
    """Tables of the study by name: results/<study>/tables/<name>.csv."""
    found = [table for section in _of(study) for table in section.tables]
    return {table.name: table for table in found if table.inputs(study)}


def figures(study: Study) -> dict[str, Product]:
    """Figures of the study by name: results/<study>/figures/<name>.pdf and .png."""
    found = [figure for section in _of(study) for figure in section.figures]
    return {figure.name: figure for figure in found if figure.inputs(study)}


def files(study: Study) -> list[str]:
    """Results that belong to the page as they are, relative to results/<study>."""
    return [name for section in sections(study) for name in section.files(study)]


def table_keys() -> dict[str, tuple[str, ...]]:
    """Of every table that any study can have: the columns that name its rows."""
    return {table.name: table.keys for section in SECTIONS for table in section.tables}


def claims_inputs(study: Study) -> list[str]:
    """What claims.json is computed from, relative to results/<study>."""
    return [f"tables/{name}.csv" for name in tables(study)]


def page_inputs(study: Study) -> list[str]:
    """What report.html is made from, relative to results/<study>."""
    drawn = [f"figures/{name}.png" for name in figures(study)]
    return [*claims_inputs(study), *drawn, *files(study), "claims.json"]


def claims_modules() -> list[str]:
    """Modules below `stablevelocity` whose code decides what claims.json holds."""
    judges = [section.claims for section in SECTIONS if section.claims]
    return ["reporting.claims", *(f"reporting.{name.split(':')[0]}" for name in judges)]


def page_modules() -> list[str]:
    """Modules below `stablevelocity` whose code decides what report.html says, given tables, figures and claims."""
    texts = [f"reporting.{section.text.split(':')[0]}" for section in SECTIONS]
    return ["reporting.page", *texts]
