"""What the main job costs: the default study and the larger one that it was, against an older checkout, by turns.

python -m benchmarks.main_job --before CHECKOUT     writes the section of benchmarks/RESULTS.md

Each round runs `snakemake all` of each in a folder of its own. Counted is the processor time of all its processes, the
ones that outlive Snakemake too.
"""

import argparse
import ctypes
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import machine, replace_section

RESULTS = Path(__file__).parent / "RESULTS.md"
HEADING = "## The main job, whole studies"
HERE = Path(__file__).resolve().parent.parent
PARTS = ("stablevelocity", "workflow", "config")


def run(checkout: Path, study: str | None, cores: int) -> tuple[float, float]:
    """(CPU-seconds, seconds) of a study file of a checkout, by default its default study. Call it once in a process."""
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans are counted here
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            shutil.copytree(checkout / part, Path(folder, part), ignore=shutil.ignore_patterns("__pycache__"))
        command = ["snakemake", "all", "--cores", str(cores), *(["--configfile", f"config/{study}"] if study else [])]
        start = time.monotonic()
        with open(Path(folder, "said"), "w") as said:
            done = subprocess.Popen(
                command, cwd=folder, env=os.environ | {"PYTHONPATH": folder}, stdout=said, stderr=said
            )
            done.wait()
            seconds = time.monotonic() - start
            while True:
                try:
                    os.wait()
                except ChildProcessError:
                    break
        if done.returncode:
            sys.exit(f"error: {' '.join(command)} of {checkout} failed:\n{Path(folder, 'said').read_text()[-2000:]}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime, seconds


def section(before: Path, rounds: int, cores: int) -> str:
    """The section of RESULTS.md."""
    ask = ["git", "-C", str(before), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(ask, capture_output=True, check=True, text=True).stdout.strip()
    cases = {
        f"the default study before (commit {commit})": (before, ""),
        "the default study, config/digits.yaml": (HERE, ""),
        "the former one, config/digits-arms.yaml": (HERE, "digits-arms.yaml"),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for number in range(rounds):
        for name in list(cases)[:: 1 if number % 2 == 0 else -1]:
            checkout, study = cases[name]
            child = [sys.executable, "-m", "benchmarks.main_job", "--child", str(checkout), study, str(cores)]
            cpu, seconds = map(float, subprocess.run(child, check=True, capture_output=True, text=True).stdout.split())
            print(f"{name}: {cpu:.0f} CPU-seconds, {seconds:.0f} s", flush=True)
            found[name].append((cpu, seconds))
    medians = {name: [statistics.median(values) for values in zip(*each, strict=True)] for name, each in found.items()}
    first = next(iter(medians.values()))
    lines = [
        HEADING,
        "",
        f"Made by `python -m benchmarks.main_job --before CHECKOUT`, {rounds} rounds by turns. {machine()}.",
        f"Medians, --cores {cores}; processor time of Snakemake and all its jobs.",
        "",
        "| study | CPU-seconds | of the one before | seconds |",
        "| --- | --- | --- | --- |",
    ]
    for name, (cpu, seconds) in medians.items():
        lines.append(f"| {name} | {cpu:,.0f} | {cpu / first[0]:.2f} | {seconds:,.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What the main job costs, before and after.")
    parser.add_argument("--before", type=Path, help="checkout to compare with")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(*run(Path(given.child[0]), given.child[1] or None, int(given.child[2])))
    else:
        text = section(given.before.resolve(), given.rounds, given.cores)
        replace_section(RESULTS, HEADING, text)
        print(text)
