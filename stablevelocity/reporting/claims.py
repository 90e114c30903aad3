"""Claims of the paper, each judged from the numbers of the study's tables: claims.json.

Nothing here is set by hand: a verdict follows from an interval by a rule that is written beside it.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stablevelocity.files import read_json, write_json
from stablevelocity.reporting import registry
from stablevelocity.reporting.describe import scope_text
from stablevelocity.reporting.products import load
from stablevelocity.reporting.source import Frame, Source
from stablevelocity.study import Study

Verdict = Literal["supported", "not supported", "inconclusive at this scale"]
MARKS = {"supported": "[yes]", "not supported": "[no]", "inconclusive at this scale": "[?]"}
LINES = 10
"""Lines of the summary, the first one included."""


@dataclass(frozen=True)
class Claim:
    """One claim and what was found.

    `value` with its 95 % `interval` (None: there is none, e.g. one seed) in `unit` is what `rule` judged. `how` names
    run, seed, solver, steps, guidance and samples. `line` is the finding in one line; the summary takes the lines of
    the claims that are `headline`.
    """

    id: str
    paper_claim: str
    measured: str
    value: float
    interval: tuple[float, float] | None
    unit: str
    verdict: Verdict
    rule: str
    how: dict[str, Any]
    line: str
    headline: bool = False
    published: str | None = None
    scope: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Tables:
    """The finished tables of a study, by name."""

    study: Study
    results: Path

    def table(self, name: str) -> Frame | None:
        """None when this study has no such table."""
        return Source(self.study, self.results).table(name)


def judge(low: float, high: float, *, claimed: Literal["below 0", "above 0"]) -> Verdict:
    """Verdict by a 95 % interval: it lies wholly on the claimed side of 0, wholly on the other, or neither.

    NaN bounds (one seed: no interval) are inconclusive.
    """
    if np.isnan(low) or np.isnan(high) or low <= 0 <= high:
        return "inconclusive at this scale"
    return "supported" if (high < 0) == (claimed == "below 0") else "not supported"


def bounds(low: float, high: float) -> tuple[float, float] | None:
    """An interval as it is kept in claims.json."""
    return None if np.isnan(low) or np.isnan(high) else (low, high)


def make_claims(study: Study, results: Path, out: Path) -> None:
    """Judge every claim that the study's tables speak of, and write them to `out` (claims.json)."""
    tables = Tables(study, results)
    scope = scope_text(study)
    found = []
    for section in registry.sections(study):
        if section.claims:
            for claim in load(section.claims)(tables):
                found.append({**asdict(claim), "scope": claim.scope or scope})
    write_json(out, _plain(found))


def _plain(value: Any) -> Any:
    """numpy scalars as Python's, and no NaN (JSON has none)."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value != value:
        return None
    return value


def summary_lines(results: Path) -> list[str]:
    """At most ten lines of plain text that say what was found, read from claims.json."""
    claims = read_json(Path(results) / "claims.json")
    counts = {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in Verdict.__args__}
    first = f"{len(claims)} claims tested at this scale: " + ", ".join(
        f"{count} {verdict.removesuffix(' at this scale')} {MARKS[verdict]}" for verdict, count in counts.items()
    )
    headlines = [claim for claim in claims if claim["headline"]][: LINES - 1]
    return [first, *(f"{MARKS[claim['verdict']]:5} {claim['line']}" for claim in headlines)]
