"""A claim of the paper with its verdict, claims.json, and the summary in ten lines."""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stablevelocity.errors import UserError
from stablevelocity.files import read_json
from stablevelocity.records import conforms
from stablevelocity.reporting.spec import LAYOUT
from stablevelocity.reporting.templates import TEMPLATES, environment
from stablevelocity.reporting.verdicts import ERROR, MARKS, Outcome, holm

TEXTS = TEMPLATES / "claims.yaml"
HEADLINES = 9
"""Claims in the summary, at most."""


@dataclass(frozen=True)
class Claim:
    """A statement of the paper and what the study measured.

    `outcome` is the verdict on `value` by a rule that stands with the sentences of the claim in templates/claims.yaml,
    under `text` or else `id`; `facts` are what these speak of besides. `how` names run, seed, solver, steps, guidance
    and samples. An empty `scope` is that of the study. `headline`: in the summary or not; None: as its text says.
    """

    id: str
    outcome: Outcome
    how: dict[str, Any]
    value: float = np.nan
    facts: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    scope: str = ""
    headline: bool | None = None

    def record(self, scope: str, p_corrected: float = np.nan) -> dict[str, Any]:
        """What claims.json holds of it, with the study's `scope`: plain values, no NaN (JSON has none).

        `line` is the result in one line; the summary takes the lines of the claims that are headlines. `interval` is of
        95 %, `bound` what it is compared with; `detectable` is the effect that an open claim's test would have found in
        80 of 100 studies. `corrected` is the verdict when `p_corrected` (Holm, over all claims of the study) counts.
        """
        texts, outcome = _texts()[self.text or self.id], self.outcome
        bounds = outcome.effect.bounds() if outcome.effect else (np.nan, np.nan)
        known = {"value": self.value, "verdict": outcome.verdict, "bounds": bounds, "p": outcome.p}
        facts = {**texts, **known, **self.facts}
        said = {name: _said(text, facts) for name, text in texts.items() if isinstance(text, str)}
        record = {"id": self.id, **{name: said[name] for name in ("paper_claim", "measured", "unit", "rule", "line")}}
        record |= {"value": self.value, "interval": None if np.isnan(bounds).any() else bounds}
        record["bound"] = outcome.bound
        record |= {"verdict": outcome.verdict, "reason": outcome.reason or None, "p": outcome.p}
        record |= {"p_corrected": p_corrected, "corrected": "open" if p_corrected >= ERROR else outcome.verdict}
        is_open = outcome.verdict == "open" and outcome.effect is not None
        record |= {"detectable": outcome.effect.detectable if is_open and outcome.effect else None, "how": self.how}
        record["headline"] = texts.get("headline", False) if self.headline is None else self.headline
        return _plain(record | {"published": said.get("published") or None, "scope": self.scope or scope})


def records(claims: list[Claim], scope: str) -> list[dict[str, Any]]:
    """claims.json: each claim's record, with the correction for how many there are."""
    corrected = holm([claim.outcome.p for claim in claims])
    return [claim.record(scope, p) for claim, p in zip(claims, corrected, strict=True)]


@functools.cache
def _texts() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(TEXTS.read_text())


def _said(text: str, facts: dict[str, Any]) -> str:
    return " ".join(environment(escape=False).from_string(text).render(facts).split())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value


def overview(claims: list[dict[str, Any]]) -> str:
    """How many claims of claims.json have which verdict, and how many of those stand after Holm's correction."""
    counts = {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in MARKS}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    lost = sum(claim["corrected"] != claim["verdict"] for claim in claims)
    return f"{len(claims)} claims: {told}" + (f"; {lost} of them open after Holm's correction" if lost else "")


def headlines(claims: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The claims of claims.json that the summary tells."""
    return [claim for claim in claims if claim["headline"]][:HEADLINES]


@dataclass
class _Told:
    verdict: str
    corrected: str
    headline: bool
    line: str


def read_claims(folder: Path) -> list[dict[str, Any]]:
    """What claims.json of a study's folder holds."""
    claims = read_json(folder / LAYOUT.claims)
    if not conforms(claims, list[_Told]):
        raise UserError(f"{folder / LAYOUT.claims}: is no list of claims; delete it and run the workflow again")
    return claims


def summary_lines(folder: Path) -> list[str]:
    """At most ten lines of plain text that say what was measured, read from claims.json."""
    claims = read_claims(folder)
    if any(claim["verdict"] not in MARKS for claim in claims):
        raise UserError(
            f"{folder / LAYOUT.claims}: has verdicts of earlier code; make claims again, or read report.html"
        )
    marked = [(f"[{MARKS[claim['verdict']]}]", claim["line"]) for claim in headlines(claims)]
    return [overview(claims), *(f"{mark:14} {line}" for mark, line in marked)]
