"""A claim of the paper with its verdict, claims.json, and the summary in ten lines."""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stablevelocity.files import read_json
from stablevelocity.reporting.spec import LAYOUT
from stablevelocity.reporting.templates import TEMPLATES, environment
from stablevelocity.reporting.verdicts import MARKS, Verdict

TEXTS = TEMPLATES / "claims.yaml"
HEADLINES = 9
"""Claims in the summary, at most."""


@dataclass(frozen=True)
class Claim:
    """A statement of the paper and what the study measured.

    `verdict` follows from `value` and its 95 % interval `bounds` (NaN: none, e.g. from one seed) by a rule that stands
    with the sentences of the claim in templates/claims.yaml, under `text` or else `id`; `facts` are what these speak of
    besides. `how` names run, seed, solver, steps, guidance and samples. An empty `scope` is that of the study.
    """

    id: str
    value: float
    verdict: Verdict
    how: dict[str, Any]
    bounds: tuple[float, float] = (np.nan, np.nan)
    facts: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    scope: str = ""

    def record(self, scope: str) -> dict[str, Any]:
        """What claims.json holds of it, with the study's `scope`: plain values, no NaN (JSON has none).

        `line` is the result in one line; the summary takes the lines of the claims that are headlines.
        """
        texts = _texts()[self.text or self.id]
        facts = {**texts, **vars(self), **self.facts}
        said = {name: _said(text, facts) for name, text in texts.items() if isinstance(text, str)}
        record = {"id": self.id, **{name: said[name] for name in ("paper_claim", "measured", "unit", "rule", "line")}}
        record |= {"value": self.value, "interval": None if np.isnan(self.bounds).any() else self.bounds}
        record |= {"verdict": self.verdict, "how": self.how, "headline": texts.get("headline", False)}
        return _plain(record | {"published": said.get("published") or None, "scope": self.scope or scope})


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
    """How many claims of claims.json have which verdict."""
    counts = [
        f"{sum(claim['verdict'] == verdict for claim in claims)} {verdict.removesuffix(' at this scale')} [{mark}]"
        for verdict, mark in MARKS.items()
    ]
    return f"{len(claims)} claims tested at this scale: {', '.join(counts)}"


def headlines(claims: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The claims of claims.json that the summary tells."""
    return [claim for claim in claims if claim["headline"]][:HEADLINES]


def summary_lines(folder: Path) -> list[str]:
    """At most ten lines of plain text that say what was measured, read from claims.json."""
    claims = read_json(folder / LAYOUT.claims)
    marked = [(f"[{MARKS[claim['verdict']]}]", claim["line"]) for claim in headlines(claims)]
    return [overview(claims), *(f"{mark:5} {line}" for mark, line in marked)]
