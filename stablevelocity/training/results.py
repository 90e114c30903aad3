"""Results of a finished run: kept beside its checkpoints, and published where the workflow declares them.

Snakemake deletes the declared outputs before it starts a rule again, also when the run had finished in between
(its job outlived Snakemake). The kept copy is a hard link, so it takes no space.
"""

import os
import shutil
import sys
from pathlib import Path

from stablevelocity.files import atomic_write
from stablevelocity.provenance import name_from, provenance_file, write_facts, write_provenance
from stablevelocity.records import read_record
from stablevelocity.study import Run
from stablevelocity.training.identity import settings_of


def result_files(checkpoints: Path, steps: list[int]) -> list[tuple[int, Path]]:
    """(step, file) of the weights of each kept step, in the folder of the run's checkpoints."""
    return [(step, checkpoints / "result" / f"step-{step:08d}.safetensors") for step in steps]


def record_results(checkpoints: Path, run: Run, inputs: list[Path], codes: list[str], processes: int) -> None:
    """Beside the results: what they were made from, and by which codes, one after the other."""
    result = checkpoints / "result"
    files = [result / "metrics.csv", *(path for _, path in result_files(checkpoints, run.steps))]
    write_provenance(
        files, inputs=inputs, settings=settings_of(run), code="+".join(codes), command=sys.argv, processes=processes
    )


def publish(checkpoints: Path, folder: Path, steps: list[int]) -> None:
    """Link the results into `folder`, with their record: weights/step-*.safetensors and metrics.csv."""
    metrics = checkpoints / "result" / "metrics.csv"
    targets = {path: folder / "weights" / path.name for _, path in result_files(checkpoints, steps)}
    targets[metrics] = folder / "metrics.csv"
    for source, target in targets.items():
        _link(source, target)
    made = read_record(provenance_file(metrics))
    outputs = {
        name_from(folder, targets[path]): state | {"mtime_ns": targets[path].stat().st_mtime_ns}
        for path, state in made.outputs.items()
    }
    inputs = {name_from(folder, path): checksum for path, checksum in made.inputs.items()}
    write_facts(provenance_file(targets[metrics]), made.facts | {"inputs": inputs, "outputs": outputs})


def _link(source: Path, target: Path) -> None:
    if target.exists() and target.samefile(source):
        return  # not made newer: what follows from it may already be there
    with atomic_write(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, temporary)
        os.utime(temporary)  # as new as what Snakemake believes was just made
