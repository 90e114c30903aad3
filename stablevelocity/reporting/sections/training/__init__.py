"""Training: arms x seeds, tables 1 to 3, alignment over t, samples."""

from stablevelocity.reporting.products import Product, Section
from stablevelocity.study import Run, Study
from stablevelocity.study.methods import ablations, kind, principal

FLOOR = "metrics/floor.csv"


def fidelity_file(run: str, step: int, sampler: str) -> str:
    """Where the metrics of one set of samples lie."""
    return f"metrics/fidelity/{run}/step-{step:08d}/{sampler}.csv"


def _all(study: Study) -> list[str]:
    return [*(fidelity_file(*chosen) for chosen in study.sample_sets()), FLOOR]


def _main(study: Study) -> list[str]:
    main = study.sampling.main
    return [*(fidelity_file(*chosen) for chosen in study.sample_sets() if chosen[2] == main), FLOOR]


def _guided(study: Study) -> list[str]:
    guided = [name for name, sampler in study.sampling.samplers.items() if sampler.guidance > 1]
    files = [fidelity_file(*chosen) for chosen in study.sample_sets() if chosen[2] in guided]
    return [*files, FLOOR] if files else []


def _ablations(study: Study) -> list[str]:
    return _main(study) if ablations(study) else []


def _regimes(study: Study) -> list[str]:
    return _main(study) if any(kind(arm).regime == "high" for arm in study.arms.values()) else []


def _alignment(study: Study) -> list[str]:
    return [f"runs/{run.name}/alignment.csv" for run in principal_runs(study) if run.alignment]


def _metrics(study: Study) -> list[str]:
    return [f"runs/{run.name}/metrics.csv" for run in principal_runs(study)]


def principal_runs(study: Study) -> list[Run]:
    """Runs of the arms that the paper's comparisons need."""
    return [run for run in study.runs().values() if run.arm in principal(study)]


def sample_files(study: Study) -> dict[str, str]:
    """By arm: the first shard of its first seed at its last step, main sampler."""
    main = study.sampling.main
    files: dict[str, str] = {}
    for run in principal_runs(study):
        if run.arm in study.sampling.arms.get(main, study.arms):
            files.setdefault(run.arm, f"samples/{run.name}/step-{run.steps[-1]:08d}/{main}/shard-00000.safetensors")
    return files


def _samples(study: Study) -> list[str]:
    return list(sample_files(study).values())


SECTION = Section(
    name="training",
    title="Training: what each part of the method changes",
    text="sections.training.text:text",
    claims="sections.training.claims:claims",
    tables=(
        Product(
            "table1",
            "sections.training.tables:table1",
            _guided,
            published=("table1_imagenet256_cfg.csv",),
            keys=("arm", "step", "sampler"),
        ),
        Product(
            "table2",
            "sections.training.tables:table2",
            _main,
            published=("table2_model_scale_nocfg.csv",),
            keys=("arm", "step", "sampler"),
        ),
        Product(
            "table3",
            "sections.training.tables:table3",
            _main,
            published=("table3_alignment_variants.csv",),
            keys=("base", "arm", "step", "sampler"),
        ),
        Product(
            "ablations",
            "sections.training.tables:ablated",
            _ablations,
            published=(
                "ablation_xi_training.csv",
                "table2_model_scale_nocfg.csv",
                "table3_alignment_variants.csv",
            ),
            keys=("setting", "arm", "step"),
        ),
        Product(
            "differences",
            "sections.training.tables:differences",
            _all,
            published=(
                "table2_model_scale_nocfg.csv",
                "table3_alignment_variants.csv",
                "figure3b_alignment_regime.csv",
            ),
            keys=("comparison", "step", "sampler", "metric"),
        ),
        Product("runs", "sections.training.tables:runs", _all, keys=("run", "step", "sampler", "metric")),
        Product("alignment", "sections.training.tables:alignment", _alignment, keys=("run", "step", "t")),
    ),
    figures=(
        Product("training_fidelity", "sections.training.figures:by_arm", _main),
        Product("figure3a", "sections.training.figures:alignment", _alignment),
        Product(
            "figure3b",
            "sections.training.figures:regimes",
            _regimes,
            published=("figure3b_alignment_regime.csv",),
        ),
        Product("training_curves", "sections.training.figures:curves", _metrics),
        Product("samples", "sections.training.samples:samples", _samples),
    ),
)
