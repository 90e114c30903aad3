"""Sampling: StableVS beside its control arm, and FID against the number of network calls."""

from stablevelocity.reporting.spec import LAYOUT, Product, Section
from stablevelocity.study import Study

TABLE4, XI = "table4_stablevs_text_to_image.csv", "ablation_xi_sampling.csv"


def sweep(study: Study) -> list[str]:
    return [*(LAYOUT.sweep(run) for run in study.sweep_runs()), LAYOUT.split_points]


def images(study: Study) -> list[str]:
    return [LAYOUT.sweep_images(run) for run in study.sweep_runs()]


SECTION = Section(
    name="sampling",
    title="Sampling: StableVS and few steps",
    settings=lambda study: [study.sampling, {name: arm.label for name, arm in study.arms.items()}],
    tables=(
        Product("stablevs", sweep, keys=("run", "solver", "xi", "low_steps")),
        Product("stablevs_images", images, keys=("solver", "xi", "low_steps", "image")),
        Product("few_step", sweep, keys=("run", "solver", "low_regime", "steps", "xi", "low_steps")),
    ),
    figures=(
        Product("stablevs", sweep, (XI, TABLE4)),
        Product("few_step", sweep),
    ),
    has_view=False,
)
