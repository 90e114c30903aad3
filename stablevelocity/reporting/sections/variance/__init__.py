"""Two regimes of variance: figure 1, split points, and how much of it is the finite set of points."""

from stablevelocity.reporting.spec import LAYOUT, Product, Section
from stablevelocity.study import Study

PAPER = ("figure1_variance_regimes.csv",)


def curves(study: Study) -> list[str]:
    return [LAYOUT.variance_curves, LAYOUT.split_points]


def mixtures(study: Study) -> list[str]:
    return [LAYOUT.variance_references] if study.variance.gmm_dimensions else []


SECTION = Section(
    name="variance",
    title="Two regimes of variance",
    tables=(
        Product("variance", "variance.tables", curves, PAPER, keys=("source", "law")),
        Product("references", "variance.tables", mixtures, keys=("source", "t")),
    ),
    figures=(
        Product("figure1", "variance.figures", curves, PAPER),
        Product("figure1_references", "variance.figures", mixtures),
    ),
)
