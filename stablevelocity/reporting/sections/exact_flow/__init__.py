"""StableVS where the velocity is known: dimension, spectrum, spread, guidance, solver, xi, steps."""

from stablevelocity.reporting.spec import LAYOUT, Product, Section
from stablevelocity.study import Study

MIXTURE, SETTING = ("dimension", "exponent", "spread", "guidance"), ("solver", "xi", "low_steps")


def flows(study: Study) -> list[str]:
    return [LAYOUT.exact_flow] if study.exact_flow and study.arms else []


def flows_and_data(study: Study) -> list[str]:
    """Beside the mixtures, where the study's own latents and networks lie."""
    sweeps = [LAYOUT.sweep(run) for run in study.sweep_runs()]
    return [*flows(study), LAYOUT.latent_spectrum, *sweeps] if flows(study) else []


SECTION = Section(
    name="exact_flow",
    title="StableVS on exact velocities",
    tables=(
        Product("exact_flow", flows, keys=MIXTURE),
        Product("exact_flow_settings", flows, keys=("dimension", "exponent", *SETTING)),
        Product("exact_flow_runs", flows, keys=(*MIXTURE, *SETTING, "seed")),
    ),
    figures=(Product("exact_flow", flows_and_data),),
    settings=lambda study: [study.exact_flow, study.sampling, study.sweep_runs()],
)
