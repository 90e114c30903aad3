"""Two regimes of variance: figure 1, split points, and how much of it is the finite set of points."""

from stablevelocity.reporting.spec import LAYOUT, Product, Section, training_images
from stablevelocity.study import Study

PAPER = ("figure1_variance_regimes.csv",)


def curves(study: Study) -> list[str]:
    return [LAYOUT.variance_curves, LAYOUT.split_points]


def mixtures(study: Study) -> list[str]:
    return [LAYOUT.variance_references] if study.variance.gmm_dimensions else []


def pixels(study: Study) -> list[str]:
    """Images of the pixels' own curve, and its split point."""
    return [*training_images(study), LAYOUT.split_points] if "pixels" in study.variance.data else []


SECTION = Section(
    name="variance",
    title="Two regimes of variance",
    settings=lambda study: [study.variance, study.images],
    tables=(
        Product("variance", curves, PAPER, keys=("source", "law")),
        Product("references", mixtures, keys=("source", "t")),
    ),
    figures=(
        Product("figure1", curves, PAPER),
        Product("figure1_references", mixtures),
        Product("figure2", pixels),
    ),
    has_view=False,
)
