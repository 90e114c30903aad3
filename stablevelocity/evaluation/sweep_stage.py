"""The verb `sweep`, from files to files."""

# Not in `stages`: the rules hash the modules that their stage imports, and a change of the sampler must not score every
# set of images again.

import shutil
from pathlib import Path

from stablevelocity.evaluation.score import ReferenceStatistics
from stablevelocity.evaluation.stages import open_extractor, write_table
from stablevelocity.evaluation.sweep import sweep_table
from stablevelocity.sampling.stages import open_sampler
from stablevelocity.study import Run, Study


def run_sweep(
    study: Study,
    run: Run,
    weights: Path,
    autoencoder: Path,
    classifier: Path | None,
    reference: Path,
    output: Path,
    images_output: Path,
    processes: int = 1,
) -> None:
    """Few-step and same-noise study of one run's last weights, by sampler and image; resumes from `<output>.parts/`."""
    blocks, identity = open_sampler(weights, autoencoder, study.sampler(study.sampling.main), study.sampling)
    parts = output.with_name(output.name + ".parts")
    given = open_extractor(study.evaluation, classifier), ReferenceStatistics.load(reference)
    settings = study.sampling.sweep, study.evaluation
    table, images = sweep_table(blocks, *given, *settings, parts, weights=identity, processes=processes)
    write_table(images, {"run": run.name}, images_output)
    write_table(table, {"run": run.name, "arm": run.arm, "seed": run.seed, "step": run.training.steps}, output)
    shutil.rmtree(parts, ignore_errors=True)
