"""Training: arms x seeds, tables 1 to 3, alignment over t, samples."""

from stablevelocity.reporting.spec import LAYOUT, Product, Section
from stablevelocity.study import Run, Study
from stablevelocity.study.methods import ablations, kind, principal

HERE = "reporting.sections.training"
TABLES, FIGURES = f"{HERE}.tables", f"{HERE}.figures"

TABLE1, TABLE2 = "table1_imagenet256_cfg.csv", "table2_model_scale_nocfg.csv"
TABLE3, FIGURE3B = "table3_alignment_variants.csv", "figure3b_alignment_regime.csv"
XI = "ablation_xi_training.csv"


def guided(study: Study) -> list[str]:
    """Samplers with guidance."""
    return [name for name, sampler in study.sampling.samplers.items() if sampler.guidance > 1]


def principal_runs(study: Study) -> list[Run]:
    """Runs of the arms that the paper's comparisons need."""
    return [run for run in study.runs().values() if run.arm in principal(study)]


def sample_files(study: Study) -> dict[str, str]:
    """By arm: the first shard of its first seed at its last step, main sampler."""
    main = study.sampling.main
    files: dict[str, str] = {}
    for run in principal_runs(study):
        if run.arm in study.sampling.arms.get(main, study.arms):
            files.setdefault(run.arm, LAYOUT.sample_shard(run.name, run.steps[-1], main, 0))
    return files


def _fidelity(study: Study, samplers: list[str]) -> list[str]:
    files = [LAYOUT.fidelity(*one) for one in study.sample_sets() if one[2] in samplers]
    return [*files, LAYOUT.real_baseline] if files else []


def _all(study: Study) -> list[str]:
    return _fidelity(study, list(study.sampling.samplers))


def _main(study: Study) -> list[str]:
    return _fidelity(study, [study.sampling.main])


def _guided(study: Study) -> list[str]:
    return _fidelity(study, guided(study))


def _ablations(study: Study) -> list[str]:
    return _main(study) if ablations(study) else []


def _regimes(study: Study) -> list[str]:
    return _main(study) if any(kind(arm).regime == "high" for arm in study.arms.values()) else []


def _alignment(study: Study) -> list[str]:
    return [LAYOUT.alignment_curve(run.name) for run in principal_runs(study) if run.alignment]


def _metrics(study: Study) -> list[str]:
    return [LAYOUT.training_metrics(run.name) for run in principal_runs(study)]


def _samples(study: Study) -> list[str]:
    return list(sample_files(study).values())


ROW = ("arm", "step", "sampler")

SECTION = Section(
    name="training",
    title="Training: what each part of the method changes",
    tables=(
        Product("table1", TABLES, _guided, (TABLE1,), keys=ROW),
        Product("table2", TABLES, _main, (TABLE2,), keys=ROW),
        Product("table3", TABLES, _main, (TABLE3,), keys=("base", *ROW)),
        Product("ablations", TABLES, _ablations, (XI, TABLE2, TABLE3), keys=("setting", "arm", "step")),
        Product(
            "differences",
            TABLES,
            _all,
            (TABLE2, TABLE3, FIGURE3B),
            keys=("comparison", "step", "sampler", "metric"),
        ),
        Product("runs", TABLES, _all, keys=("run", "step", "sampler", "metric")),
        Product("alignment", TABLES, _alignment, keys=("run", "step", "t")),
    ),
    figures=(
        Product("training_fidelity", FIGURES, _main),
        Product("figure3a", FIGURES, _alignment),
        Product("figure3b", FIGURES, _regimes, (FIGURE3B,)),
        Product("training_curves", FIGURES, _metrics),
        Product("samples", f"{HERE}.samples", _samples),
    ),
)
