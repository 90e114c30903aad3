"""Where a report's numbers came from: hashes of study and package, and how long each job took."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pandas as pd

from stablevelocity.provenance import PACKAGE
from stablevelocity.reporting.results import DataFrame
from stablevelocity.study import Study, study_json


def study_hash(study: Study) -> str:
    """First 12 digits of the SHA-256 of the resolved study."""
    return hashlib.sha256(study_json(study).encode()).hexdigest()[:12]


def package_hash() -> str:
    """First 12 digits of a hash over all source files of the package."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(file.relative_to(PACKAGE)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def commit() -> str | None:
    """The commit of the checkout that holds the package, with "+" when its code was changed since; None elsewhere."""

    def git(*words: str) -> str | None:
        done = subprocess.run(["git", "-C", str(PACKAGE), *words], capture_output=True, text=True)
        return None if done.returncode else done.stdout.strip()

    if shutil.which("git") is None or not git("ls-files", "--", "errors.py"):
        return None
    return f"{git('rev-parse', 'HEAD')}{'+' if git('status', '--porcelain', '--', '.') else ''}"


def durations(folder: Path) -> DataFrame | None:
    """What Snakemake's benchmark files say; None when there are none.

    A row per rule (the name of a job up to its first dash): name, jobs, seconds, CPU seconds, largest memory in MB.
    """
    files = sorted((folder / "benchmarks").rglob("*.tsv"))
    last = [pd.read_csv(file, sep="\t", na_values="-").tail(1).assign(name=file.stem.split("-")[0]) for file in files]
    if not any(map(len, last)):
        return None
    jobs: DataFrame = pd.concat(last).reindex(columns=["name", "s", "cpu_time", "max_rss"])
    sums = {"jobs": ("s", "size"), "seconds": ("s", "sum"), "cpu": ("cpu_time", "sum"), "memory": ("max_rss", "max")}
    return jobs.groupby("name", sort=False).agg(**sums).reset_index()


def timeline(folder: Path) -> DataFrame | None:
    """When each job ran, in seconds after the first began: name of its rule, job, start, end, the earliest first.

    A benchmark file is written when its job ends and holds how long it took. None when there are none.
    """
    rows = []
    for file in (folder / "benchmarks").rglob("*.tsv"):
        seconds = pd.read_csv(file, sep="\t", na_values="-")["s"]
        if len(seconds):
            end = file.stat().st_mtime
            row = {"name": file.stem.split("-")[0], "job": file.stem, "start": end - seconds.iloc[-1], "end": end}
            rows.append(row)
    if not rows:
        return None
    jobs: DataFrame = pd.DataFrame(rows).sort_values("start", ignore_index=True)
    jobs[["start", "end"]] -= jobs["start"].min()
    return jobs
