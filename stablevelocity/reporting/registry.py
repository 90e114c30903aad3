"""The sections of the report in their order, and what a study has of them; importable without pandas and torch."""

from pathlib import Path
from typing import Any

from stablevelocity.reporting.sections import conditions, exact_flow, pretrained, sampling, toy, training, variance
from stablevelocity.reporting.spec import LAYOUT, Product, Section
from stablevelocity.study import Study
from stablevelocity.study.layout import committed

EVIDENCE = Path("results/reference/evidence")

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


PAPER_TABLES = {
    "table1": "Table 1. ImageNet 256 with guidance",
    "table2": "Table 2. ImageNet 256 without guidance, by model",
    "table3": "Table 3. ImageNet 256 without guidance, by base method",
    "ablations": "Ablations of training",
    "table4": "Table 4. StableVS on text-to-image models",
    "table5": "Table 5. StableVS on a text-to-video model",
    "pretrained_xi": "Ablation of ξ in sampling",
}
"""Titles of the paper's tables in its order, by the table of a study that each is measured in."""


def paper_tables(study: Study) -> dict[str, str]:
    """Those of PAPER_TABLES that a study is about: without arms, the ones of pretrained models."""
    of_models = {table.name for table in pretrained.SECTION.tables}
    return {name: title for name, title in PAPER_TABLES.items() if study.arms or name in of_models}


def paper_files(study: Study) -> list[str]:
    """These in every format, relative to results/<study>."""
    suffixes = ("csv", "md", "tex", "html")
    return [LAYOUT.paper_table(name, suffix) for name in paper_tables(study) for suffix in suffixes]


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
    papers = [LAYOUT.paper_table(name, suffix) for name in paper_tables(study) for suffix in ("csv", "html")]
    return [*claims_inputs(study), *papers, *drawn, *files(study), LAYOUT.claims]


def evidence(study: Study) -> Path | None:
    """The claims of the committed study that decides them on digits, which the page of another study of digits quotes.

    None for that study itself and other data. It may be missing.
    """
    is_digits = bool(study.arms) and study.images.dataset == "digits"
    return committed(EVIDENCE) / LAYOUT.claims if is_digits and study.name != EVIDENCE.name else None


def claims_modules() -> list[str]:
    """Modules below `stablevelocity` whose code decides what claims.json holds."""
    return ["reporting.claims", *(section.module("claims") for section in SECTIONS if section.has_claims)]


def page_modules() -> list[str]:
    """Modules below `stablevelocity` whose code decides what report.html says, given tables, figures and claims."""
    return ["reporting.page", *(section.module("view") for section in SECTIONS if section.has_view)]
