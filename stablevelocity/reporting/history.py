"""Where a report's numbers came from: hashes of study and package, and how long each job took."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pandas as pd

from stablevelocity.files import read_json
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


def timeline(folder: Path) -> DataFrame | None:
    """The last execution of each job, the earliest first: name of its rule, job, start, end, cpu, memory.

    start and end in seconds after the first began; cpu: processor seconds; memory: the largest, in MiB. The name of a
    rule is that of its log up to the first dash. None when there are no such files.
    """
    rows = [
        {"name": file.stem.split("-")[0], "job": file.stem, **read_json(file)} for file in folder.glob("logs/*.json")
    ]
    if not rows:
        return None
    jobs: DataFrame = pd.DataFrame(rows).sort_values("start", ignore_index=True)
    jobs[["start", "end"]] -= jobs["start"].min()
    return jobs


def durations(folder: Path) -> DataFrame | None:
    """A row per rule: name, jobs, seconds, processor seconds, largest memory in MiB; None when nothing is known."""
    jobs = timeline(folder)
    if jobs is None:
        return None
    jobs["seconds"] = jobs["end"] - jobs["start"]
    sums = {"jobs": ("job", "size"), "seconds": ("seconds", "sum"), "cpu": ("cpu", "sum"), "memory": ("memory", "max")}
    return jobs.groupby("name", sort=False).agg(**sums).reset_index()
