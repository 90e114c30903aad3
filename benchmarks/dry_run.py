"""What planning a large study costs: `python -m benchmarks.dry_run` writes its section of benchmarks/RESULTS.md.

Dry runs of the ImageNet study and of one with four times its seeds, here and with --profile slurm, each in a process of
its own; counted are processor time and the jobs that SLURM would get.
"""

import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks.measuring import machine, replace_section

RESULTS = Path(__file__).parent / "RESULTS.md"
HEADING = "## Planning the ImageNet study"
HERE = Path(__file__).resolve().parent.parent
STUDY = HERE / "config" / "imagenet256.yaml"
ROUNDS = 3
BOUNDS = {1: 10, 4: 30}  # CPU-seconds, by the multiple of the seeds


def study_of(times: int, folder: Path) -> Path:
    """The study with so many times its seeds."""
    study = yaml.safe_load(STUDY.read_text())
    for training in [study["training"], *(arm["training"] for arm in study["arms"].values() if "training" in arm)]:
        if "seeds" in training:
            training["seeds"] = list(range(times * len(training["seeds"])))
    path = folder / f"imagenet-{times}.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def dry_run(study: Path, *profile: str) -> tuple[float, str]:
    """(CPU-seconds, what is said) of a dry run."""
    command = ["snakemake", "-n", "all", *profile, "--configfile", str(study)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)}:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout + done.stderr


def slurm_jobs(said: str) -> tuple[int, int]:
    """Jobs of SLURM for ordinary rules, and what they would be if nothing were packed."""
    alone = len(re.findall(r"^    resources: .*\bpacked=1\b", said, re.MULTILINE))
    in_packs = len(re.findall(r"^        resources: .*\bpacked=1\b", said, re.MULTILINE))
    return alone + len(re.findall(r"Group job \S+ \(jobs", said)), alone + in_packs


def section() -> str:
    """The section of RESULTS.md."""
    lines = [
        HEADING,
        "",
        f"Made by `python -m benchmarks.dry_run`. {machine()}.",
        f"`snakemake -n all --configfile config/imagenet256.yaml`, medians of {ROUNDS}; training: one more job a run.",
        "",
        "| study | CPU-seconds here | with --profile slurm | bound | jobs of SLURM, unpacked | packed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for times, bound in BOUNDS.items():
            study = study_of(times, Path(folder))
            here = statistics.median(dry_run(study)[0] for _ in range(ROUNDS))
            cluster = [dry_run(study, "--profile", "slurm") for _ in range(ROUNDS)]
            packed, alone = slurm_jobs(cluster[0][1])
            seconds = statistics.median(cpu for cpu, _ in cluster)
            name = "config/imagenet256.yaml" if times == 1 else f"{times} times its seeds"
            lines.append(f"| {name} | {here:.1f} | {seconds:.1f} | {bound} | {alone:,} | {packed:,} |")
            print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(HERE)
    replace_section(RESULTS, HEADING, section())
