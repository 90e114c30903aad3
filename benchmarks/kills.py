"""kill -9 at random moments of a study: `python -m benchmarks.kills --kills 200 --seed 0`.

The smoke study runs in a copy of the project and is killed again and again: Snakemake with all its processes, or one
process of it alone (training, sampling, extraction, the rest). In the end it is finished and compared, file by file,
with a study that nothing disturbed. Prints how many kills of which kind there were; exits with 1 when a bit differs.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND = ["snakemake", "all", "--cores", "1", "--configfile", "config/smoke.yaml"]
KINDS = {
    "training": [" train "],
    "sampling": [" sample ", " sweep "],
    "extraction": ["-shard ", " evaluate ", " reference ", " judge ", " autoencoder ", " encoder "],
}
# By which files two runs of a study may differ: times, and what tells of them.
TIMED = {".log", ".tsv", ".html", ".json", ".png", ".pdf", ".svg", ".md", ".tex"}
SECONDS = {"images_per_s", "memory_mb", "seconds", "s_per_step", "relative"}


def start(folder: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    with open(folder / "run.log", "a") as log:
        return subprocess.Popen(COMMAND, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def processes(session: int) -> dict[int, str]:
    """Command lines of the processes of a session, by id."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rsplit(")", 1)[1].split()[3]) == session:
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except (OSError, IndexError):
            continue
    return found


def kill_at_random(job: subprocess.Popen, draws: random.Random) -> str:
    """Kill one job of the study, or the head with all that it started; which of the two and of which kind."""
    running = processes(job.pid)
    works = {
        kind: [pid for pid, line in running.items() if any(word in line for word in words) and pid != job.pid]
        for kind, words in KINDS.items()
    }
    kinds = [kind for kind, pids in works.items() if pids]
    if kinds and draws.random() < 0.7:
        kind = draws.choice(kinds)
        for pid in works[kind]:
            with_kill(pid)
        return kind
    for pid in running:
        with_kill(pid)
    return "head"


def with_kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def content(file: Path) -> bytes | list[tuple[str, ...]]:
    """What must be equal of a file: all of it, or of a table the columns that are no times."""
    if file.suffix != ".csv":
        return file.read_bytes()
    import pandas as pd

    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    kept = [name for name in table if not any(word in name for word in SECONDS)]
    return [tuple(kept), *table[kept].itertuples(index=False, name=None)]


def different(found: Path, expected: Path) -> list[str]:
    names = [str(file.relative_to(expected)) for file in expected.rglob("*") if file.is_file()]
    names = [name for name in names if Path(name).suffix not in TIMED and "checkpoints/" not in name]
    names = [name for name in names if name != "lock" and "/job/" not in name and "cost" not in name]
    return [name for name in names if not (found / name).exists() or content(found / name) != content(expected / name)]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--longest", type=float, default=20.0, help="seconds between two kills, at most")
    options.add_argument("--reference", type=Path, help="a folder with a finished results/smoke of this code")
    given = options.parse_args()
    draws, counts = random.Random(given.seed), Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "killed"
        for part in ("stablevelocity", "workflow", "config"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        job, finished = start(folder), 0
        while sum(counts.values()) < given.kills:
            time.sleep(draws.uniform(0.1, given.longest))
            if job.poll() is None:
                counts[kill_at_random(job, draws)] += 1
                if counts.total() % 10 == 0:
                    print(f"{counts.total()} kills: {dict(counts)}", flush=True)
            if job.poll() is not None or not processes(job.pid):
                if job.wait() == 0:  # nothing disturbed its last jobs: another round, from the results of the first
                    finished += 1
                    shutil.rmtree(folder / "results" / "smoke" / draws.choice(["runs", "samples", "metrics", "data"]))
                job = start(folder)
        job.wait()
        for _ in range(3):  # a job that was killed ends its Snakemake
            if start(folder).wait() == 0:
                break
        reference = given.reference
        if reference is None:
            reference = Path(name) / "whole"
            for part in ("stablevelocity", "workflow", "config"):
                shutil.copytree(ROOT / part, reference / part, ignore=shutil.ignore_patterns("__pycache__"))
            start(reference).wait()
        wrong = different(folder / "results" / "smoke", reference / "results" / "smoke")
    print(f"{counts.total()} kills ({dict(counts)}), {finished} studies ended between them: {len(wrong)} files differ")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
