"""The toy experiment: CFM, STF and StableVM on a mixture whose velocity is known."""

from stablevelocity.reporting.spec import LAYOUT, Inputs, Product, Section


def of_toy(*names: str) -> Inputs:
    return lambda study: [LAYOUT.toy(name) for name in names] if study.toy else []


ERROR, VARIANCE, COST = of_toy("error"), of_toy("target_variance", "gradient_variance"), of_toy("cost")

SECTION = Section(
    name="toy",
    title="A toy experiment against the exact velocity",
    tables=(
        Product("toy_error", "toy.tables", ERROR, keys=("objective", "t")),
        Product("toy_variance", "toy.tables", VARIANCE, keys=("objective", "t")),
        Product("toy_cost", "toy.tables", COST, keys=("references",)),
    ),
    figures=(
        Product("toy_error", "toy.figures", ERROR),
        Product("toy_variance", "toy.figures", VARIANCE),
        Product("toy_cost", "toy.figures", COST),
    ),
)
