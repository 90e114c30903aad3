"""Sampling: StableVS beside its control arm, and FID against the number of network calls."""

from stablevelocity.reporting.products import Product, Section
from stablevelocity.study import Study


def sweep_file(run: str) -> str:
    return f"metrics/sweep/{run}.csv"


def _sweep(study: Study) -> list[str]:
    return [sweep_file(run) for run in study.sweep_runs()]


def _sweep_and_split(study: Study) -> list[str]:
    return [*_sweep(study), "variance/split_points.csv"]


SECTION = Section(
    name="sampling",
    title="Sampling: StableVS and few steps",
    text="sections.sampling.text:text",
    claims="sections.sampling.claims:claims",
    tables=(
        Product(
            "stablevs",
            "sections.sampling.tables:stablevs",
            _sweep_and_split,
            keys=("run", "solver", "xi", "low_steps"),
        ),
        Product(
            "few_step",
            "sections.sampling.tables:few_step",
            _sweep_and_split,
            keys=("run", "solver", "low_regime", "steps", "xi", "low_steps"),
        ),
    ),
    figures=(
        Product(
            "stablevs",
            "sections.sampling.figures:stablevs",
            _sweep_and_split,
            published=("ablation_xi_sampling.csv", "table4_stablevs_text_to_image.csv"),
        ),
        Product("few_step", "sections.sampling.figures:few_step", _sweep_and_split),
    ),
)
