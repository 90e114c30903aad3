"""The text of a label is text wherever it is shown: in LaTeX, in HTML, in a spreadsheet."""

import pytest

from stablevelocity.reporting.paper_formats import Line, Shown, _latex, to_html, to_latex
from stablevelocity.reporting.templates import environment

COMMANDS = [
    r"\input{/etc/passwd}",
    r"\write18{id}",
    "a & b % c # d _ e ~ f ^ g",
    "$x_{t}$",
    "{",
    "}",
    r"\end{document}",
]


def named(label: str) -> Shown:
    """A table of one row that has this name."""
    return Shown(["Method", "", "FID", "Verdict"], [([label], [Line("measured", ["1"], [False], "not run")])], [])


def is_plain(tex: str) -> bool:
    """Whether LaTeX would read neither a command of the text nor a special character in it."""
    for known in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}"):
        tex = tex.replace(known, "")
    for special in "&%$#_{}":
        tex = tex.replace(f"\\{special}", "")
    return not set(tex) & set("\\&%$#_{}~^")


@pytest.mark.parametrize("label", COMMANDS)
def test_a_label_is_no_command_of_latex(label):
    assert is_plain(_latex(label))
    rows = to_latex("Table 2. FID", named(label)).splitlines()
    assert any(row.startswith(f"{_latex(label)} & measured") for row in rows)


@pytest.mark.parametrize("label", ["<script>alert(1)</script>", '" onload="x', "a & b", "<b>x"])
def test_a_label_is_no_element_of_the_page(label):
    shown = environment(escape=True).from_string("<td title='{{ label }}'>{{ label }}</td>").render(label=label)
    assert shown.count("<") == 2
    assert shown.count('"') == 0
    assert label not in to_html("Table 2. FID", named(label))
