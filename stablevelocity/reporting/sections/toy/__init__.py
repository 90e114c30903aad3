"""The toy experiment: CFM, STF and StableVM on a mixture whose velocity is known."""

from stablevelocity.reporting.products import Inputs, Product, Section

ERROR, TARGET = "toy/error.csv", "toy/target_variance.csv"
GRADIENT, COST = "toy/gradient_variance.csv", "toy/cost.csv"


def _of_toy(*files: str) -> Inputs:
    return lambda study: list(files) if study.toy else []


SECTION = Section(
    name="toy",
    title="A toy experiment against the exact velocity",
    text="sections.toy.text:text",
    claims="sections.toy.claims:claims",
    tables=(
        Product("toy_error", "sections.toy.tables:error", _of_toy(ERROR), keys=("objective", "t")),
        Product("toy_variance", "sections.toy.tables:variance", _of_toy(TARGET, GRADIENT), keys=("objective", "t")),
        Product("toy_cost", "sections.toy.tables:cost", _of_toy(COST), keys=("references",)),
    ),
    figures=(
        Product("toy_error", "sections.toy.figures:error", _of_toy(ERROR)),
        Product("toy_variance", "sections.toy.figures:variance", _of_toy(TARGET, GRADIENT)),
        Product("toy_cost", "sections.toy.figures:cost", _of_toy(COST)),
    ),
)
