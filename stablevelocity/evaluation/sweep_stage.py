"""The workflow's sweep job. A module of its own: the other evaluation jobs do not depend on the sampling code."""

from pathlib import Path

from stablevelocity.evaluation.score import Reference
from stablevelocity.evaluation.stages import open_extractor, write_table
from stablevelocity.evaluation.sweep import remove_parts, sweep_table
from stablevelocity.sampling.stages import open_sampler
from stablevelocity.study import Study


def run_sweep(
    study: Study,
    run: str,
    weights: Path,
    autoencoder: Path,
    judge: Path | None,
    reference: Path,
    output: Path,
    processes: int = 1,
) -> None:
    """Few-step and same-noise study of one run's last weights; resumes from `<output>.parts/`."""
    extractor = open_extractor(study.evaluation, judge)
    template = study.sampler(study.sampling.main)
    blocks, identity = open_sampler(weights, autoencoder, template, study.sampling)
    parts = output.with_name(output.name + ".parts")
    table = sweep_table(
        blocks,
        extractor,
        Reference.load(reference),
        study.sampling.sweep,
        study.evaluation,
        parts,
        weights=identity,
        processes=processes,
    )
    found = study.runs()[run]
    write_table(table, {"run": run, "arm": found.arm, "seed": found.seed, "step": found.training.steps}, output)
    remove_parts(parts)
