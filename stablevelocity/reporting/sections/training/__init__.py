"""Training: arms x seeds, tables 1 to 3, alignment over t, samples."""

from collections.abc import Callable, Collection

from stablevelocity.reporting.spec import LAYOUT, Inputs, Product, Section, training_images
from stablevelocity.study import Run, Study
from stablevelocity.study.methods import HIGH, ablations, kind, principal

TABLE1, TABLE2 = "table1_imagenet256_cfg.csv", "table2_model_scale_nocfg.csv"
TABLE3, FIGURE3B = "table3_alignment_variants.csv", "figure3b_alignment_regime.csv"
XI = "ablation_xi_training.csv"


def guided(study: Study) -> list[str]:
    """Samplers with guidance."""
    return [name for name, sampler in study.sampling.samplers.items() if sampler.guidance > 1]


def principal_runs(study: Study) -> list[Run]:
    """Runs of the arms that the paper's comparisons need."""
    arms = principal(study)
    return [run for run in study.runs().values() if run.arm in arms]


def sample_files(study: Study) -> dict[str, str]:
    """By arm: the first shard of its first seed at its last step, main sampler."""
    main = study.sampling.main
    files: dict[str, str] = {}
    for run in principal_runs(study):
        if run.arm in study.sampling.arms.get(main, study.arms):
            files.setdefault(run.arm, LAYOUT.sample_shard(run.name, run.steps[-1], main, 0))
    return files


def of_samplers(samplers: Callable[[Study], Collection[str]]) -> Inputs:
    """Metrics of the images of some samplers, and those of real images."""

    def inputs(study: Study) -> list[str]:
        wanted = samplers(study)
        files = [LAYOUT.fidelity(*one) for one in study.sample_sets() if one[2] in wanted]
        return [*files, LAYOUT.real_baseline] if files else []

    return inputs


ALL, GUIDED = of_samplers(lambda study: study.sampling.samplers), of_samplers(guided)
MAIN = of_samplers(lambda study: [study.sampling.main])


def of_ablations(study: Study) -> list[str]:
    return MAIN(study) if ablations(study) else []


def of_regimes(study: Study) -> list[str]:
    return MAIN(study) if any(kind(arm).regime == HIGH for arm in study.arms.values()) else []


def of_aligned(study: Study) -> list[str]:
    return [LAYOUT.alignment_curve(run.name) for run in principal_runs(study) if run.alignment]


def of_runs(study: Study) -> list[str]:
    return [LAYOUT.training_metrics(run.name) for run in principal_runs(study)]


def of_gradients(study: Study) -> list[str]:
    return [LAYOUT.gradient_variance(run) for run in study.gradient_runs()]


def of_figure3(study: Study) -> list[str]:
    return [*of_aligned(study), *of_regimes(study)] if of_aligned(study) else []


def of_samples(study: Study) -> list[str]:
    files = list(sample_files(study).values())
    return [*training_images(study), *files] if files else []


ROW = ("arm", "step", "sampler")

SECTION = Section(
    name="training",
    title="Training: what each part of the method changes",
    settings=lambda study: [study.model_dump(mode="json", exclude={"variance", "toy", "exact_flow", "pretrained"})],
    tables=(
        Product("table1", GUIDED, keys=ROW),
        Product("table2", MAIN, keys=ROW),
        Product("table3", MAIN, keys=("base", *ROW)),
        Product("ablations", of_ablations, keys=("setting", "arm", "step")),
        Product("differences", ALL, (TABLE3, FIGURE3B), keys=("comparison", "step", "sampler", "metric")),
        Product("runs", ALL, keys=("run", "step", "sampler", "metric")),
        Product("gradient_variance", of_gradients, keys=("run", "step")),
        Product("alignment", of_aligned, keys=("run", "step", "t")),
    ),
    figures=(
        Product("training_fidelity", MAIN),
        Product("figure3", of_figure3, (FIGURE3B,)),
        Product("training_curves", of_runs),
        Product("gradient_variance", of_gradients),
        Product("samples", of_samples, module="samples"),
    ),
)
