"""The paper's tables in its own rows and columns, with measured numbers beside the published ones.

Every row of the paper is there; what the study has besides follows as rows of its own. A number has one verdict:

- reproduced: the published value lies where one more run of this study would (95 % prediction interval), and that
  interval reaches no further than `WIDEST` of it to each side;
- not reproduced: it lies outside;
- not comparable, and why: another protocol, no published value, no spread known, or an interval too wide;
- not run.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from stablevelocity.reporting.format import listed
from stablevelocity.reporting.results import DataFrame

REPRODUCED, NOT_REPRODUCED, NOT_COMPARABLE, NOT_RUN = "reproduced", "not reproduced", "not comparable", "not run"
WIDEST = 0.1
HIGHER_IS_BETTER = {"is", "precision", "recall", "psnr", "ssim", "score"}

Row = dict[str, Any]
Gap = Callable[[str, Row, Row], tuple[float, float]]
"""95 % interval of the difference in a metric between two measured rows; NaN when it is not known."""


@dataclass(frozen=True)
class Columns:
    """Columns of a table of the paper by their titles: `keys` name a row, `shown` say more of it, then the metrics."""

    keys: dict[str, str]
    shown: dict[str, str]
    metrics: dict[str, str]


def compose(columns: Columns, published: list[Row], measured: list[Row], gap: Gap) -> DataFrame:
    """A row per published row, then the other measured ones; per metric m: published_m, m, m_sd, m_low, m_high, the
    difference m_difference with the interval that one more run's would have, m_verdict, and m_best.

    A measured row has the columns of the paper, m, m_sd, m_low, m_high, and m_reach, half its prediction interval;
    `apart`, what differs from the paper's protocol; `group`, those it competes with; `source`, what it was read from.
    Of several that are the same row of the paper, the one least apart takes its place.
    """
    best = {metric: _best(metric, measured, gap) for metric in columns.metrics}
    repeats: dict[tuple[str, ...], Row] = {}
    for row in sorted(measured, key=lambda row: len(row["apart"])):
        repeats.setdefault(_key(columns, row), row)
    known = {_key(columns, row) for row in published}
    own = [row for row in measured if _key(columns, row) not in known or repeats[_key(columns, row)] is not row]
    pairs = [(paper, repeats.get(_key(columns, paper), {})) for paper in published] + [({}, row) for row in own]
    return pd.DataFrame([_joined(columns, paper, row, best) for paper, row in pairs])


def _key(columns: Columns, row: Row) -> tuple[str, ...]:
    return tuple(_text(row.get(key)) for key in columns.keys)


def _text(value: Any) -> str:
    """0.70, "0.7" and 0.7 are one; so are a value that is not known and one that is not given."""
    try:
        return "" if value is None or value != value else f"{float(value):.10g}"
    except ValueError:
        return str(value)


def _joined(columns: Columns, paper: Row, ours: Row, best: dict[str, list[Row]]) -> Row:
    row = {column: paper.get(column, ours.get(column)) for column in (*columns.keys, *columns.shown)}
    row |= {"in_paper": bool(paper), "source": ours.get("source", "")}
    apart = ours.get("apart", []) if paper else ["the paper has no such row"]
    verdicts = {}
    for metric in columns.metrics:
        theirs, value, reach = paper.get(metric), ours.get(metric), ours.get(f"{metric}_reach")
        theirs, value, reach = (math.nan if one is None else float(one) for one in (theirs, value, reach))
        verdicts[metric] = verdict(theirs, value, reach, apart) if ours else NOT_RUN
        row |= {f"published_{metric}": theirs, metric: value}
        row |= {f"{metric}_{what}": ours.get(f"{metric}_{what}", math.nan) for what in ("sd", "low", "high")}
        change = value - theirs
        row |= {f"{metric}_difference": change, f"{metric}_difference_low": change - reach}
        row |= {f"{metric}_difference_high": change + reach, f"{metric}_verdict": verdicts[metric]}
        row[f"{metric}_best"] = any(ours is one for one in best[metric])
    missed = [columns.metrics[metric] for metric, one in verdicts.items() if one == NOT_REPRODUCED]
    met = REPRODUCED if REPRODUCED in verdicts.values() else next(iter(verdicts.values()))
    return row | {"verdict": f"{NOT_REPRODUCED}: {listed(missed)}" if missed else met}


def verdict(theirs: float, value: float, reach: float, apart: list[str]) -> str:
    """Of a measured `value` whose prediction interval extends `reach` to each side, by the rules above."""
    if apart:
        return f"{NOT_COMPARABLE}: {'; '.join(apart)}"
    if math.isnan(value):
        return f"{NOT_COMPARABLE}: not measured"
    if math.isnan(theirs):
        return f"{NOT_COMPARABLE}: the published value is not known"
    if math.isnan(reach):
        return f"{NOT_COMPARABLE}: no spread is known"
    if reach > WIDEST * abs(theirs):
        return f"{NOT_COMPARABLE}: one more run could lie {reach / abs(theirs):.0%} away"
    return REPRODUCED if abs(value - theirs) <= reach else NOT_REPRODUCED


def _best(metric: str, rows: list[Row], gap: Gap) -> list[Row]:
    """Of each group of competing rows the best, with all whose difference to it may be 0; none without intervals."""
    found, sign = [], 1 if metric in HIGHER_IS_BETTER else -1
    for group in dict.fromkeys(row["group"] for row in rows):
        members = [row for row in rows if row["group"] == group and not math.isnan(row.get(metric, math.nan))]
        members.sort(key=lambda row: sign * row[metric], reverse=True)
        gaps = [gap(metric, row, members[0]) for row in members[1:]]
        if gaps and not any(math.isnan(low) for low, _ in gaps):
            ties = [row for row, (low, high) in zip(members[1:], gaps, strict=True) if low <= 0 <= high]
            found += [members[0], *ties]
    return found
