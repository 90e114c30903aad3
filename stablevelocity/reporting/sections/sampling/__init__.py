"""Sampling: StableVS beside its control arm, and FID against the number of network calls."""

from stablevelocity.reporting.spec import LAYOUT, Product, Section
from stablevelocity.study import Study

TABLE4, TABLE5, XI = (
    "table4_stablevs_text_to_image.csv",
    "table5_stablevs_text_to_video.csv",
    "ablation_xi_sampling.csv",
)


def sweep(study: Study) -> list[str]:
    return [*(LAYOUT.sweep(run) for run in study.sweep_runs()), LAYOUT.split_points]


SECTION = Section(
    name="sampling",
    title="Sampling: StableVS and few steps",
    tables=(
        Product("stablevs", "sampling.tables", sweep, keys=("run", "solver", "xi", "low_steps")),
        Product("few_step", "sampling.tables", sweep, keys=("run", "solver", "low_regime", "steps", "xi", "low_steps")),
    ),
    figures=(
        Product("stablevs", "sampling.figures", sweep, (XI, TABLE4)),
        Product("few_step", "sampling.figures", sweep),
    ),
)
