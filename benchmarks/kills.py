"""kill -9 at random moments of a study: `python -m benchmarks.kills --kills 200 --seed 0`.

The smoke study is finished once. Then, in a copy of it, results are deleted, and the command that made them (their
records have it) is started and killed at a random moment, again and again, until it may end: of training, of sampling,
of extraction (images, latents, features, metrics). Of the head, Snakemake is killed, alone or with all that it started.
In the end every file must be what it is in the untouched study. Prints the kills of each kind, and which files differ.

Jobs start from the workflow's warm start, so that a kill costs seconds: each is a process of its own, as ever.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stablevelocity.cli.warm_start import THREAD_VARIABLES, start_server
from stablevelocity.records import Record, read_records

ROOT = Path(__file__).parents[1]
RESULTS = Path("results/smoke")
# More checkpoints, blocks and shards than the smoke study has, so that a kill may come between them.
CHANGES = ["training={checkpoint_every: 2}", "sampling={block: 8, images: 64}", "images={shards: 4}"]
HEAD = ["snakemake", "all", "--cores", "1", "--configfile", "config/smoke.yaml", "--config", *CHANGES]
KINDS = {
    "training": ["runs/*/metrics.csv"],
    "sampling": ["samples/*/*/*/shard-*.safetensors", "metrics/sweep/*.csv"],
    "extraction": ["data/*/*.safetensors", "metrics/fidelity/*.csv", "metrics/*.npz"],
}
IN_A_ROW = 8  # kills of a job, at most; then it may end
# In which files two runs of a study may differ: in times, and in what has checksums of those.
TIMED = {".log", ".tsv", ".html"}
SECONDS = ("images_per_s", "memory_mb", "seconds", "s_per_step", "relative")
SECONDS_DRAWN = "figures/toy_cost."
NOT_COMPARED = {"made", "verified", "outputs", "inputs", "command"}


def start(command: list[str]) -> subprocess.Popen:
    with open("run.log", "a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def kill(job: subprocess.Popen, *, alone: bool = False) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(job.pid, signal.SIGKILL) if alone else os.killpg(job.pid, signal.SIGKILL)
    job.wait()


def until_it_ends(
    command: list[str], draws: random.Random, usual: float, killed: Callable[[], bool], before: Callable[[], None]
) -> float:
    """Start a command and kill it, some times, until it has ended by itself; the seconds that it took then."""
    for attempt in range(IN_A_ROW + 1):
        before()
        job, since = start(command), time.monotonic()
        try:
            status = job.wait(None if attempt == IN_A_ROW else draws.uniform(0, 1.2 * usual))
        except subprocess.TimeoutExpired:
            kill(job, alone=draws.random() < 0.5)
            if killed():
                continue
            before()
            since, status = time.monotonic(), start(command).wait()
        if status:
            end = Path("run.log").read_text(errors="replace")[-6000:]
            sys.exit(f"{end}\n{' '.join(command)}: ended with {status} by itself; all is kept in {Path.cwd()}")
        break
    return time.monotonic() - since


def kill_jobs(records: list[Record], kills: int, draws: random.Random) -> int:
    """Make results of a kind again, killing the jobs; how many times."""
    count, usual = 0, 2.0

    def killed() -> bool:
        nonlocal count
        count += 1
        return count < kills

    while count < kills:
        record = draws.choice(records)
        if record.first.name == "metrics.csv":  # with its checkpoints
            shutil.rmtree(record.first.parent / "checkpoints")

        def remove(record: Record = record) -> None:  # as Snakemake does before a job
            for path in record.outputs:
                path.unlink(missing_ok=True)

        usual = until_it_ends(record.facts["command"], draws, usual, killed, remove)
    return count


def kill_heads(kills: int, draws: random.Random) -> int:
    """Delete some folder of results and finish the study, killing Snakemake; how many times."""
    count, usual = 0, 15.0

    def killed() -> bool:
        nonlocal count
        count += 1
        return count < kills

    while count < kills:
        made = {record.first.relative_to(RESULTS).parts[:2] for record in read_records(RESULTS)}
        for folder in draws.sample(sorted(RESULTS / Path(*parts) for parts in made), 3):
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        usual = until_it_ends(HEAD, draws, usual, killed, lambda: None)
    return count


def content(file: Path) -> Any:
    """What must be equal of a file: all of it; of tables and records what tells of no time."""
    if file.suffix == ".csv":
        import pandas as pd

        table = pd.read_csv(file, dtype=str, keep_default_na=False)
        kept = [name for name in table if not any(word in name for word in SECONDS)]
        return [kept, *map(list, table[kept].itertuples(index=False))]
    if file.name.endswith(".provenance.json"):
        facts = json.loads(file.read_text())
        return {name: facts[name] for name in facts if name not in NOT_COMPARED}
    return file.read_bytes()


def compared(results: Path) -> set[str]:
    """The files of a study that must be equal."""
    files = [file.relative_to(results) for file in results.rglob("*") if file.is_file()]
    files = [file for file in files if file.suffix not in TIMED and file.name not in ("lock", "checksums.json")]
    files = [file for file in files if not str(file).startswith(SECONDS_DRAWN) or file.suffix == ".json"]
    return {str(file) for file in files if file.parts[0] != "logs" and "job" not in file.parts}


def differences(results: Path, expected: Path) -> list[str]:
    """Files that are in one of two studies only, or not the same in both."""
    here, there = compared(results), compared(expected)
    odd = [f"{name}: only in one of them" for name in sorted(here ^ there)]
    return odd + sorted(name for name in here & there if content(results / name) != content(expected / name))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    draws, counts = random.Random(given.seed), Counter()
    os.environ |= dict.fromkeys(THREAD_VARIABLES, "1")
    folder = Path(tempfile.mkdtemp(prefix="kills-"))  # stays where a file differs, or a command ends badly
    print(f"in {folder}", flush=True)
    whole, copy = folder / "whole", folder / "killed"
    for part in ("stablevelocity", "workflow", "config"):
        shutil.copytree(ROOT / part, whole / part, ignore=shutil.ignore_patterns("__pycache__"))
    os.chdir(whole)
    os.environ["PYTHONPATH"] = str(whole)
    start_server()
    if start(HEAD).wait():
        sys.exit(Path("run.log").read_text()[-3000:])
    shutil.copytree(whole, copy, symlinks=True)
    os.chdir(copy)
    records = read_records(RESULTS)
    for number, (kind, patterns) in enumerate(KINDS.items()):
        some = [one for one in records if any(one.first.relative_to(RESULTS).match(p) for p in patterns)]
        counts[kind] = kill_jobs(some, (given.kills + number) // 4, draws)
        wrong = differences(RESULTS, whole / RESULTS)
        print(f"{kind}: {counts[kind]} kills; {len(wrong)} files differ", flush=True)
    counts["head"] = kill_heads(given.kills - counts.total(), draws)
    wrong = differences(RESULTS, whole / RESULTS)
    files = len(compared(whole / RESULTS))
    print(f"{counts.total()} kills ({dict(counts)}); of {files} files compared {len(wrong)} differ")
    if wrong:
        print("\n".join([*wrong, f"both studies are kept in {folder}"]))
        return 1
    os.chdir(ROOT)
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
