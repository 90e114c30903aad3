"""The toy experiment: CFM, STF and StableVM on a mixture whose velocity is known."""

from stablevelocity.reporting.spec import LAYOUT, Inputs, Product, Section


def of_toy(*names: str) -> Inputs:
    return lambda study: [LAYOUT.toy(name) for name in names] if study.toy else []


ERROR, VARIANCE, COST = of_toy("error"), of_toy("target_variance", "gradient_variance"), of_toy("cost")
RUNS = of_toy("error", "target_variance", "gradient_variance")

SECTION = Section(
    name="toy",
    title="A toy experiment against the exact velocity",
    settings=lambda study: [study.toy],
    tables=(
        Product("toy_error", ERROR, keys=("objective", "t")),
        Product("toy_variance", VARIANCE, keys=("objective", "t")),
        Product("toy_runs", RUNS, keys=("measure", "objective", "seed", "t")),
        Product("toy_cost", COST, keys=("references",)),
    ),
    figures=(
        Product("toy_error", ERROR),
        Product("toy_variance", VARIANCE),
        Product("toy_cost", COST),
    ),
    has_view=False,
)
