"""What the main job costs: the default study and the larger one that it was, against an older checkout, by turns.

python -m benchmarks.main_job --before CHECKOUT --keep FOLDER

writes the section of benchmarks/RESULTS.md, and compares the tables of the larger study with those of the older
checkout (`same_tables.py`), on the samples of which it then draws as that one did. Each round runs `snakemake all` of
each in a folder of its own. Counted is the processor time of all its processes, the ones that outlive Snakemake too,
and of its jobs what they start with: the interpreter and imports, wherever they stand.
"""

import argparse
import ctypes
import json
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
from benchmarks.same_tables import main as compare_tables

RESULTS = Path(__file__).parent / "RESULTS.md"
HEADING = "## The main job, whole studies"
HERE = Path(__file__).resolve().parent.parent
PARTS = ("stablevelocity", "workflow", "config")
# Run by every Python that starts: a line for the interpreter's start and for each import that is not within another.
STARTS = """
import builtins, os, time
with open("/proc/self/cmdline") as file:
    command = file.read()
if "snakemake" not in command:
    depth, import_ = 0, builtins.__import__
    def say(seconds):
        with open(os.environ["STARTS_FILE"], "a") as file:
            file.write(f"{seconds}\\n")
    def timed(*arguments, **named):
        global depth
        start, depth = time.process_time(), depth + 1
        try:
            return import_(*arguments, **named)
        finally:
            depth -= 1
            if depth == 0 and (seconds := time.process_time() - start) > 1e-3:
                say(seconds)
    say(time.process_time())
    builtins.__import__ = timed
"""


def run(checkout: Path, arguments: list[str], cores: int, kept: Path) -> tuple[float, float, float]:
    """(CPU-seconds, those of starts, seconds) of a study of a checkout, by default its default study.

    Call it once in a process. The results are moved to `kept`.
    """
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans are counted here
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            shutil.copytree(checkout / part, Path(folder, part), ignore=shutil.ignore_patterns("__pycache__"))
        hook, starts = Path(folder, "hook"), Path(folder, "starts")
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(STARTS)
        starts.touch()
        command = ["snakemake", "all", "--cores", str(cores), *arguments]
        environment = os.environ | {"PYTHONPATH": f"{folder}:{hook}", "STARTS_FILE": str(starts)}
        start = time.monotonic()
        with open(Path(folder, "said"), "w") as said:
            done = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
            done.wait()
            seconds = time.monotonic() - start
            while True:
                try:
                    os.wait()
                except ChildProcessError:
                    break
        if done.returncode:
            sys.exit(f"error: {' '.join(command)} of {checkout} failed:\n{Path(folder, 'said').read_text()[-2000:]}")
        shutil.copytree(Path(folder, "results"), kept, dirs_exist_ok=True)
        imports = sum(map(float, starts.read_text().split()))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime, imports, seconds


def section(before: Path, rounds: int, cores: int, kept: Path) -> str:
    """The section of RESULTS.md."""
    ask = ["git", "-C", str(before), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(ask, capture_output=True, check=True, text=True).stdout.strip()
    arms = ["--configfile", "config/digits-arms.yaml", "--config", "sampling={seed: 0}"]
    cases = {
        f"the default study before (commit {commit})": (before, [], kept / "before"),
        "the default study, config/digits.yaml": (HERE, [], kept / "now"),
        "the former one, config/digits-arms.yaml": (HERE, arms, kept / "now"),
    }
    costs: dict[str, list[tuple[float, ...]]] = {name: [] for name in cases}
    for number in range(rounds):
        for name in list(cases)[:: 1 if number % 2 == 0 else -1]:
            checkout, arguments, folder = cases[name]
            child = [sys.executable, "-m", "benchmarks.main_job", "--cores", str(cores), "--child", str(checkout)]
            child += [str(folder), json.dumps(arguments)]
            values = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
            costs[name].append(tuple(map(float, values)))
            print("{}: {:.0f} CPU-seconds, {:.0f} of them starts; {:.0f} s".format(name, *costs[name][-1]), flush=True)
    medians = {name: [statistics.median(values) for values in zip(*each, strict=True)] for name, each in costs.items()}
    first = next(iter(medians.values()))
    lines = [
        HEADING,
        "",
        f"Made by `python -m benchmarks.main_job --before CHECKOUT`, {rounds} rounds by turns. {machine()}.",
        f"Medians, --cores {cores}; processor time of Snakemake and all jobs. Starts: interpreter and imports of jobs.",
        "",
        "| study | CPU-seconds | of the one before | of them starts | seconds | of the one before |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, (cpu, starts, seconds) in medians.items():
        ratios = cpu / first[0], seconds / first[2]
        lines.append(f"| {name} | {cpu:,.0f} | {ratios[0]:.2f} | {starts:,.0f} | {seconds:,.0f} | {ratios[1]:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What the main job costs, before and after.")
    parser.add_argument("--before", type=Path, help="checkout to compare with")
    parser.add_argument("--keep", type=Path, help="folder for the results, to compare their tables")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(*run(Path(given.child[0]), json.loads(given.child[2]), given.cores, Path(given.child[1])))
    elif not given.before:
        parser.error("--before: which checkout to compare with?")
    else:
        kept = (given.keep or Path(tempfile.mkdtemp())).resolve()
        text = section(given.before.resolve(), given.rounds, given.cores, kept)
        replace_section(RESULTS, HEADING, text)
        print(text)
        compare_tables(kept / "now" / "digits-arms", kept / "before" / "digits")
