"""Copies of a finished study: a small one to keep in the repository, and an archive to hand on."""

import json
import os
import re
import shutil
import tempfile
import zipfile
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from mimetypes import guess_type
from pathlib import Path
from typing import Any

from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write, read_json, sha256, write_json
from stablevelocity.reporting import history, registry
from stablevelocity.reporting.spec import LAYOUT
from stablevelocity.reporting.templates import environment
from stablevelocity.reporting.trace import PROVENANCE, RECORDS, Jobs, read_jobs
from stablevelocity.study import Study, load_study

LIMIT = 4_000_000
"""Bytes of a reference copy."""
LARGEST_READ = 200_000
"""Bytes of a file that a table was computed from, above which it stays with the study."""
CRATE = "ro-crate-metadata.json"
LINK = re.compile(r' ?<a( class="file")? href="(?!#|https:)([^"]+)">(.*?)</a>')
"""In a page, to a file."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of each file in an archive: the same results give the same bytes."""


def make_reference(results: Path, out: Path) -> None:
    """Copy what a reader of the repository wants to see of results/<study> into `out`, under `LIMIT` bytes.

    `out` gets the page with its tables, figures and claims, what the tables were computed from, the paper's tables,
    study.json, records.json.gz (every job behind them), and provenance.json (hashes, hosts, durations, checksums of all
    these files). Files of an earlier copy that the study no longer has are removed. Raises UserError when the study is
    not finished or the copy is too large.
    """
    study, files = _finished(results)
    if out.resolve() == results.resolve():
        raise UserError(f"{out}: is the study itself; expected another folder")
    former = read_json(out / PROVENANCE, "sha256")["sha256"] if (out / PROVENANCE).exists() else {}
    if not isinstance(former, dict):
        raise UserError(f"{out / PROVENANCE}: is damaged; delete it to make the copy again")
    size = sum((results / name).stat().st_size for name in files)
    if size > LIMIT:
        raise UserError(f"{results}: the copy would have {size:,} bytes; expected at most {LIMIT:,}")
    facts = _write_copy(study, results, files, out, out if out.resolve().is_relative_to(Path.cwd()) else None)
    facts |= {"copied": datetime.now(UTC).isoformat(timespec="seconds")}
    for name in set(former) - set(facts["sha256"]):
        if (out / name).resolve().is_relative_to(out.resolve()):  # no record from elsewhere deletes a file
            (out / name).unlink(missing_ok=True)
    write_json(out / PROVENANCE, facts)


def make_archive(results: Path, out: Path) -> None:
    """Write the copy, with its figures in every format, as a zip that is an RO-Crate; the same results give the same
    bytes. Raises UserError when the study is not finished.
    """
    study, files = _finished(results)
    drawn = [file for name in registry.figures(study) for file in results.glob(f"figures/{name}.*")]
    files += [str(file.relative_to(results)) for file in drawn if not file.name.endswith(".provenance.json")]
    with tempfile.TemporaryDirectory() as folder, atomic_write(out) as temporary:
        copy = Path(folder)
        write_json(copy / PROVENANCE, _write_copy(study, results, sorted(set(files)), copy, None))
        write_json(copy / CRATE, _crate(study, copy))
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(copy.rglob("*")):
                if file.is_file():
                    entry = zipfile.ZipInfo(str(file.relative_to(copy)), EPOCH)
                    entry.external_attr = 0o644 << 16
                    archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)


def _finished(results: Path) -> tuple[Study, list[str]]:
    """The study and the files of its copies. Raises UserError where one is missing."""
    study = load_study(results / "study.json")
    made_from = [name for table in registry.tables(study).values() for name in table.inputs(study)]
    read = [name for name in made_from if name.endswith((".csv", ".json"))]
    drawn = [LAYOUT.figure(name, "png") for name in registry.figures(study)]
    files = [LAYOUT.study, LAYOUT.report, LAYOUT.claims, *registry.claims_inputs(study), *registry.paper_files(study)]
    files += [*drawn, *registry.files(study), *read]
    missing = [name for name in files if not (results / name).exists()]
    if missing:
        raise UserError(f"{results}: {missing[0]} is missing; a copy is made of a finished study")
    large = {name for name in read if (results / name).stat().st_size > LARGEST_READ}
    return study, [name for name in dict.fromkeys(files) if name not in large]


def _write_copy(study: Study, results: Path, files: list[str], out: Path, place: Path | None) -> dict[str, Any]:
    """Copy files and records; return what is true of them. `place`: where the copy will lie, if it is known."""
    for name in files:
        with atomic_write(out / name) as temporary:
            shutil.copyfile(results / name, temporary)
            if name == LAYOUT.report:
                temporary.write_text(_relinked(temporary.read_text(), results, files, place))
    jobs = read_jobs(results)
    jobs.write(out / RECORDS)
    checksums = {name: sha256(out / name) for name in [*files, RECORDS]}
    return {"study": study.name, **_made(study, jobs), "durations": _durations(results), "sha256": checksums}


def _relinked(page: str, results: Path, files: list[str], place: Path | None) -> str:
    """The page with the links that hold in a copy of `files`.

    Those to files outside of the study, such as the repository's, go by the way from `place`. Of those that would lead
    nowhere the words stay, but for the links that are nothing besides (class "file").
    """

    def relink(found: re.Match[str]) -> str:
        only_link, address, words = found.groups()
        target = Path(os.path.normpath(results / address))
        if not address.startswith("../"):
            if any(name == address or (address.endswith("/") and name.startswith(address)) for name in files):
                return found.group()
        elif place is not None and target.exists():
            return found.group().replace(address, Path(os.path.relpath(target, place)).as_posix())
        return "" if only_link else found.group().partition("<")[0] + words

    return LINK.sub(relink, page)


def _made(study: Study, jobs: Jobs) -> dict[str, Any]:
    times = sorted(job.made for job in jobs.values())
    hosts = Counter(json.dumps({"host": job.host, "versions": job.versions}) for job in jobs.values())
    return {
        "study_hash": history.study_hash(study),
        "package_hash": history.package_hash(),
        "commit": history.commit(),
        "first_job": times[0] if times else None,
        "last_job": times[-1] if times else None,
        "environments": [{**json.loads(host), "jobs": count} for host, count in hosts.items()],
    }


def _durations(results: Path) -> dict[str, Any] | None:
    groups = history.durations(results)
    if groups is None:
        return None
    sums = {"jobs": int(groups["jobs"].sum()), "seconds": float(groups["seconds"].sum())}
    return {**sums, "groups": groups.to_dict("records")}


def _crate(study: Study, copy: Path) -> dict[str, Any]:
    """RO-Crate 1.1's description of a folder: what it is, and type, size and checksum of each file."""
    files = sorted(str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file())
    parts = [(name, _format(name), (copy / name).stat().st_size, sha256(copy / name)) for name in files]
    facts = {
        "study": study,
        "files": parts,
        "facts": read_json(copy / PROVENANCE),
        "version": version("stablevelocity"),
    }
    return json.loads(environment(escape=False).get_template("crate.json.j2").render(facts))


def _format(name: str) -> str:
    kind, packed = guess_type(name)
    return f"application/{packed}" if packed else kind or "application/octet-stream"
