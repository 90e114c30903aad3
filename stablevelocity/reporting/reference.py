"""A small copy of a finished study to keep in the repository: tables, figures, claims, report, provenance."""

import shutil
from pathlib import Path
from typing import Any

from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write, read_json, sha256, write_json
from stablevelocity.provenance import environment
from stablevelocity.reporting import history, registry
from stablevelocity.study import Study, load_study

LIMIT = 4_000_000
"""Bytes of a reference copy."""


def make_reference(results: Path, out: Path) -> None:
    """Copy what a reader of the repository wants to see of results/<study> into `out`, under `LIMIT` bytes.

    `out` gets study.json, tables/*.csv with their provenance, figures/*.png, the sections' own files, claims.json,
    report.html and provenance.json (hashes, versions, host, durations, checksums of all files). Files of an earlier
    copy that the study no longer has are removed. Raises UserError when the study is not finished or the copy is too
    large.
    """
    study = load_study(results / "study.json")
    files = ["study.json", "report.html", *registry.page_inputs(study)]
    missing = [name for name in files if not (results / name).exists()]
    if missing:
        raise UserError(f"{results}: {missing[0]} is missing; a reference copy is made of a finished study")
    sidecars = [f"{name}.provenance.json" for name in registry.claims_inputs(study)]
    files += [name for name in sidecars if (results / name).exists()]
    size = sum((results / name).stat().st_size for name in files)
    if size > LIMIT:
        raise UserError(f"{results}: the copy would have {size:,} bytes; expected at most {LIMIT:,}")
    _remove_others(out, {*files, "provenance.json"})
    for name in files:
        with atomic_write(out / name) as temporary:
            shutil.copyfile(results / name, temporary)
    write_json(out / "provenance.json", _provenance(study, results, files))


def _remove_others(out: Path, kept: set[str]) -> None:
    """Only what such a copy consists of is ever removed."""
    for pattern in ("tables/*.csv", "tables/*.csv.provenance.json", "figures/*.png", "pretrained/*/comparison.*"):
        for file in out.glob(pattern):
            if str(file.relative_to(out)) not in kept:
                file.unlink()


def _provenance(study: Study, results: Path, files: list[str]) -> dict[str, Any]:
    made = [results / f"{name}.provenance.json" for name in registry.claims_inputs(study)]
    first = next((read_json(file) for file in made if file.exists()), environment())
    groups, durations = history.durations(results), None
    if groups is not None:
        sums = {"jobs": int(groups["jobs"].sum()), "seconds": float(groups["seconds"].sum())}
        durations = {**sums, "groups": groups.to_dict("records")}
    return {
        "study": study.name,
        "study_hash": history.study_hash(study),
        "package_hash": history.package_hash(),
        **{name: first[name] for name in ("versions", "host", "made")},
        "durations": durations,
        "sha256": {name: sha256(results / name) for name in files},
    }
