"""Two regimes of variance: figure 1, split points, and how much of it is the finite set of points."""

from stablevelocity.reporting.products import Inputs, Product, Section
from stablevelocity.study import Study

CURVES, SPLITS, REFERENCES = "variance/curves.csv", "variance/split_points.csv", "variance/references.csv"


def _always(*files: str) -> Inputs:
    return lambda _: list(files)


def _mixtures(study: Study) -> list[str]:
    return [REFERENCES] if study.variance.gmm_dimensions else []


SECTION = Section(
    name="variance",
    title="Two regimes of variance",
    text="sections.variance.text:text",
    claims="sections.variance.claims:claims",
    tables=(
        Product(
            "variance",
            "sections.variance.tables:variance",
            _always(CURVES, SPLITS),
            published=("figure1_variance_regimes.csv",),
            keys=("source", "law"),
        ),
        Product("references", "sections.variance.tables:references", _mixtures, keys=("source", "t")),
    ),
    figures=(
        Product(
            "figure1",
            "sections.variance.figures:figure1",
            _always(CURVES, SPLITS),
            published=("figure1_variance_regimes.csv",),
        ),
        Product("figure1_references", "sections.variance.figures:figure1_references", _mixtures),
    ),
)
