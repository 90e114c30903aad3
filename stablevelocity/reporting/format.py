"""Numbers and names as text for readers. A value that is not known (NaN) is a dash.

templates/tables.yaml and the other templates name these functions.
"""

import math
import re
from collections.abc import Iterable
from typing import Any

from stablevelocity.reporting.names import FAMILIES, GRIDS, OBJECTIVES, SOLVERS

UNKNOWN = "–"
WORDS = ("word", "label", "runs", "sampler", "named_sampler", "last_key", "setting", "grid")
"""Functions that write words, not numbers."""


SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def typeset(text: Any) -> str:
    """Plain text as print has it: a true minus, ±, ≥, ≤, and 4.71 × 10⁻³⁸ for 4.71e-38."""
    text = re.sub(
        r"\b(\d(?:\.\d+)?)e([+-]\d+)\b",
        lambda found: f"{found[1]} × 10{str(int(found[2])).translate(SUPERSCRIPTS)}",
        str(text),
    )
    text = re.sub(r"(?<![\w.)\]-])-(?=\.?\d)", "−", text.replace("+-", "±"))
    return text.replace(">=", "≥").replace("<=", "≤")


def number(value: float, digits: int = 3) -> str:
    """`digits` significant ones, no exponent where it can be helped."""
    if value != value:
        return UNKNOWN
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        return f"{value:.{digits - 1}e}"
    if size >= 10**digits:
        return f"{value:,.0f}"
    if "e" in f"{value:.{digits}g}":
        return f"{value:.0f}"
    # 0.30 and not 0.3 beside 0.31: keep the zeros that are significant.
    return f"{value:.{_decimals(value, digits)}f}"


def rough(value: float) -> str:
    """Two significant digits."""
    return number(value, 2)


def interval(low: float, high: float, digits: int = 3) -> str:
    """ "low to high" with as many decimals as the larger one needs."""
    if low != low or high != high:
        return UNKNOWN
    larger = max(abs(low), abs(high))
    if not 1e-4 <= larger < 1e6:
        return f"{number(low, digits)} to {number(high, digits)}"
    decimals = _decimals(larger, digits)
    return f"{low:.{decimals}f} to {high:.{decimals}f}"


def plus_minus(value: float, deviation: float, digits: int = 3) -> str:
    """ "value ± deviation", both with the value's decimals; the value alone when the deviation is unknown."""
    if deviation != deviation or not 1e-4 <= abs(value) < 1e6:
        return number(value, digits)
    return f"{number(value, digits)} ± {deviation:.{_decimals(value, digits)}f}"


def signed(value: float, digits: int = 3) -> str:
    return ("+" if value > 0 else "") + number(value, digits)


def percent(share: float, decimals: int = 1) -> str:
    """ "+1.5 %" for a change of 0.015."""
    return UNKNOWN if share != share else f"{100 * share:+.{decimals}f} %"


def percents(low: float, high: float) -> str:
    """ "-1.5 % to +0.3 %": an interval of shares."""
    return UNKNOWN if low != low or high != high else f"{percent(low)} to {percent(high)}"


def whole(value: float) -> str:
    """A whole number, thousands apart."""
    return f"{int(value):,}"


def plain(value: float) -> str:
    """A setting as it was given, such as 0.85."""
    return f"{value:g}"


def counted(value: float, unit: str) -> str:
    """ "1 seed", "2 seeds"."""
    return f"{whole(value)} {unit}{'' if value == 1 else 's'}"


def clock(seconds: float) -> str:
    """ "40 s", "24 min", "3.5 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def listed(values: Iterable[Any], form: Any = str, separator: str = ", ") -> str:
    """Each different value once, in order of appearance."""
    return separator.join(dict.fromkeys(form(value) for value in values))


def decimals(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"


def or_same(value: float) -> str:
    """PSNR of an image to itself is infinite."""
    return "same" if math.isinf(value) else number(value)


def bounded(value: float, low: float, high: float) -> str:
    """ "1.20 [1.10, 1.30]"; the value alone when its interval is unknown."""
    return number(value) if low != low else f"{number(value)} [{number(low)}, {number(high)}]"


def exact(value: float) -> str:
    """Counts in full, measurements to three digits."""
    return whole(value) if value >= 10 and float(value).is_integer() else number(value)


def word(value: Any) -> str:
    return "" if value != value else str(value)


def label(key: str) -> str:
    """What a solver, an objective or a family is called."""
    return (SOLVERS | OBJECTIVES | FAMILIES)[key]


def sampler(solver: str, kind: str) -> str:
    """ "Euler + StableVS": an arm of a pretrained family; the long and the short run are the solver itself."""
    return label(solver) if kind in ("long", "short") else named_sampler(solver, kind)


def named_sampler(solver: str, kind: str) -> str:
    """As `sampler`, with the long and the short run called so."""
    return label(solver) + (" + StableVS" if kind == "stablevs" else f", {kind}")


def grid(kind: str, xi: float, low_steps: float) -> str:
    """ "StableVS, xi 0.85, 9 low steps"."""
    return GRIDS[kind] + (f", xi {xi:g}, {low_steps:.0f} low steps" if xi == xi else "")


def runs(arm: str, seeds: str, sampler: str = "") -> str:
    """ "cfm-s0, s1": the runs of a row, from "seeds 0, 1"; and their sampler."""
    names = ", ".join(f"s{seed}" for seed in seeds.split(" ", 1)[1].split(", "))
    return f"{arm}-{names}" + (f"; {sampler}" if sampler else "")


def last_key(setting: str) -> str:
    """ "xi" of alignment.xi."""
    return setting.rsplit(".", 1)[1]


def setting(value: Any) -> str:
    """As a study file has it; pandas reads None as NaN, and whole numbers beside it as fractions."""
    return "None" if value != value else plain(value) if isinstance(value, float) else str(value)


def _decimals(value: float, digits: int) -> int:
    return max(0, digits - 1 - int(f"{abs(value):e}".split("e")[1]))
