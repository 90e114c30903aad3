"""Where a report's numbers came from: hashes of study and package, and how long each job took."""

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd

from stablevelocity.provenance import PACKAGE
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


def durations(folder: Path) -> dict[str, Any] | None:
    """Seconds and peak memory of each job from Snakemake's benchmark files; None when there are none.

    `groups` are rules (the name of a job up to its first dash): jobs, seconds in total, CPU seconds, largest
    memory in MB.
    """
    files = sorted((folder / "benchmarks").rglob("*.tsv"))
    last = [pd.read_csv(file, sep="\t", na_values="-").tail(1).assign(name=file.stem.split("-")[0]) for file in files]
    jobs: Any = pd.concat(last) if last else pd.DataFrame()
    if jobs.empty:
        return None
    jobs = jobs.reindex(columns=["name", "s", "cpu_time", "max_rss"])
    groups = jobs.groupby("name", sort=False).agg(
        jobs=("s", "size"), seconds=("s", "sum"), cpu=("cpu_time", "sum"), memory=("max_rss", "max")
    )
    return {"jobs": len(jobs), "seconds": float(jobs["s"].sum()), "groups": groups.reset_index().to_dict("records")}
