"""results/index.html: every study and reference copy with its date, scale, verdicts, and the code that made it."""

from pathlib import Path
from typing import Any

from stablevelocity.errors import UserError
from stablevelocity.files import read_json
from stablevelocity.reporting import describe
from stablevelocity.reporting.claims import MARKS, read_claims
from stablevelocity.reporting.spec import LAYOUT
from stablevelocity.reporting.templates import write_page
from stablevelocity.reporting.trace import PROVENANCE, read_jobs
from stablevelocity.study import load_study


def make_index(results: Path) -> Path:
    """Write index.html into `results`, from what lies in its folders and in those of results/reference."""
    files = [*sorted(results.glob("*/study.json")), *sorted(results.glob("reference/*/study.json"))]
    write_page(results / "index.html", "index.html.j2", studies=[_entry(results, file.parent) for file in files])
    return results / "index.html"


def _entry(results: Path, folder: Path) -> dict[str, Any]:
    """One study: a part that its folder does not hold is None. A study file of another version is said to be one."""
    try:
        scope = describe.scope_text(load_study(folder / "study.json"))
    except UserError as error:
        scope = f"cannot be read by this version: {error}"
    facts = read_json(folder / PROVENANCE, "sha256") if (folder / PROVENANCE).exists() else {}
    jobs = read_jobs(folder)
    page = jobs.made_by.get(LAYOUT.report)
    verdicts = [claim["verdict"] for claim in read_claims(folder)] if (folder / LAYOUT.claims).exists() else []
    return {
        "name": folder.relative_to(results).as_posix(),
        "is_copy": bool(facts),
        "has_page": (folder / LAYOUT.report).exists(),
        "scope": scope,
        "made": facts.get("last_job") or facts.get("made") or max((job.made for job in jobs.values()), default=None),
        "verdicts": {one: verdicts.count(one) for one in [*MARKS, *verdicts] if one in verdicts},
        "code": facts.get("commit") or facts.get("package_hash") or (f"report {page.code}" if page else None),
    }
