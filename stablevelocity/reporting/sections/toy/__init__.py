"""The toy experiment: CFM, STF and StableVM on a mixture whose velocity is known."""

from stablevelocity.reporting.spec import LAYOUT, Inputs, Product, Section

TABLES, FIGURES = "reporting.sections.toy.tables", "reporting.sections.toy.figures"


def of_toy(*names: str) -> Inputs:
    return lambda study: [LAYOUT.toy(name) for name in names] if study.toy else []


ERROR, VARIANCE, COST = of_toy("error"), of_toy("target_variance", "gradient_variance"), of_toy("cost")
RUNS = of_toy("error", "target_variance", "gradient_variance")

SECTION = Section(
    name="toy",
    title="A toy experiment against the exact velocity",
    settings=lambda study: [study.toy],
    tables=(
        Product("toy_error", TABLES, ERROR, keys=("objective", "t")),
        Product("toy_variance", TABLES, VARIANCE, keys=("objective", "t")),
        Product("toy_runs", TABLES, RUNS, keys=("measure", "objective", "seed", "t")),
        Product("toy_cost", TABLES, COST, keys=("references",)),
    ),
    figures=(
        Product("toy_error", FIGURES, ERROR),
        Product("toy_variance", FIGURES, VARIANCE),
        Product("toy_cost", FIGURES, COST),
    ),
)
