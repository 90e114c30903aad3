"""Names that would become a command, a path outside or a wildcard; labels that would become a formula or a break."""

from collections.abc import Callable
from pathlib import Path

from bad_inputs.case import Case
from bad_inputs.studies import check
from bad_inputs.study_keys import SMOKE, TINY

WORDS = [
    "a`touch PWNED`",
    "$(id)",
    "a;b",
    "a b",
    "a|b",
    "a>b",
    "a&b",
    "a\\b",
    "../../evil",
    "a/b",
    "/a",
    ".",
    "..",
    ".a",
]
WORDS += ["", " ", "a\n", "\na", "a\nb", "a\tb", "a\0b", "a'b", 'a"b', "--help", "-a", "*", "?", "[a]", "{x}", "~", "#"]
WORDS += [".a", "a,b", "ä", "a\u200bb", "x" * 65, "x" * 100_000, "a%b", "a:b", "a=b", "\u202ea"]
NO_WORDS = ["0", "007", "1e5", "-0.5", "inf", "NaN", "NA", "null", "None", "True", "false"]
WORDS += NO_WORDS
LABELS = ["=cmd|' /C calc'!A0", "=1+1", "+1", "-1", "@SUM(A1)", "", " ", "a\nb", "a\rb", "a\0b", "\x1b[31m", "x" * 201]
LABELS += ["a\u2028b", "a\tb", "\ufeff", "N/A", "#N/A", " 0.70 ", *NO_WORDS]


def with_name(where: str, word: str) -> Callable[[Path], None]:
    study = {
        "name": SMOKE | {"name": word},
        "arms": SMOKE | {"arms": {word: {"label": "x"}}},
        "samplers": SMOKE | {"sampling": {"main": word, "samplers": {word: {}}}},
        "category": TINY | {"pretrained": {"families": {"wan22": {"prompts": "x", "category": word}}}},
        "label": SMOKE | {"arms": {"cfm": {"label": word}}},
    }[where]
    return lambda folder: check(study, folder)


EXPECTED = {
    "name": r"name: (Input|String) should",
    "arms": r"arms\b.*: (Input|String) should",
    "samplers": r"sampling\.samplers\b.*: (Input|String) should",
    "category": r"families\.wan22\.category: (Input|String) should",
    "label": r"arms\.cfm\.label: (Input|String) should",
}
MATHEMATICS = [r"$x_{$", r"$\foo$", r"$\frac{1}$", "$x^^2$", "a $ b $ c_{ $ $"]
CASES = [
    Case(f"{where} {number}: {word[:16]!a}", with_name(where, word), expected)
    for where, expected in EXPECTED.items()
    for number, word in enumerate(LABELS if where == "label" else WORDS)
]
CASES += [
    Case(f"label: mathematics {label}", with_name("label", label), r"arms\.cfm\.label: .* cannot be drawn")
    for label in MATHEMATICS
]
