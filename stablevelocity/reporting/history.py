"""Where a report's numbers came from: hashes, versions, host, and how long each job took."""

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd

from stablevelocity.provenance import PACKAGE, environment
from stablevelocity.study import Study, study_json


def of(study: Study, results: Path) -> dict[str, Any]:
    """Facts for the last section of the report."""
    return {
        "study_hash": study_hash(study),
        "package_hash": package_hash(),
        "environment": environment(),
        "durations": durations(results),
    }


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


def durations(results: Path) -> dict[str, Any] | None:
    """Seconds and peak memory of each job from Snakemake's benchmark files; None when there are none.

    `groups` are rules (the name of a job up to its first dash): jobs, seconds in total, CPU seconds, largest
    memory in MB.
    """
    rows: list[dict[str, Any]] = []
    for file in sorted((results / "benchmarks").rglob("*.tsv")):
        frame = pd.read_csv(file, sep="\t", na_values="-")
        if len(frame):
            last = frame.iloc[-1]
            rows.append(
                {
                    "group": file.stem.split("-")[0],
                    "seconds": float(last["s"]),
                    "cpu": float(last["cpu_time"]) if "cpu_time" in frame else float("nan"),
                    "memory": float(last["max_rss"]) if "max_rss" in frame else float("nan"),
                }
            )
    if not rows:
        return None
    groups: Any = (
        pd.DataFrame(rows)
        .groupby("group", sort=False)
        .agg(jobs=("seconds", "size"), seconds=("seconds", "sum"), cpu=("cpu", "sum"), memory=("memory", "max"))
    )
    return {
        "jobs": len(rows),
        "seconds": sum(row["seconds"] for row in rows),
        "groups": [
            {"name": str(name), **row} for name, row in zip(groups.index, groups.to_dict("records"), strict=True)
        ],
    }
