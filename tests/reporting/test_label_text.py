"""The text of a label is text wherever it is shown: in LaTeX, in HTML, in a spreadsheet."""

import numpy as np
import pandas as pd
import pytest

from stablevelocity.reporting.paper_formats import _latex, _styled
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


def is_plain(tex: str) -> bool:
    """Whether LaTeX would read neither a command of the text nor a special character in it."""
    for known in (r"\textbackslash{}", r"\textbackslash ", r"\textasciitilde ", r"\textasciicircum ", r"\space "):
        tex = tex.replace(known, "")
    for special in "&%$#_{}":
        tex = tex.replace(f"\\{special}", "")
    return not set(tex) & set("\\&%$#_{}~^")


@pytest.mark.parametrize("label", COMMANDS)
def test_a_label_is_no_command_of_latex(label):
    assert is_plain(_latex(label))
    row = _styled(pd.DataFrame({"label": [label]}), np.array([[False]]), "latex").to_latex().splitlines()[2]
    assert is_plain(row.removesuffix(r" \\"))


@pytest.mark.parametrize("label", ["<script>alert(1)</script>", '" onload="x', "a & b", "<b>x"])
def test_a_label_is_no_element_of_the_page(label):
    shown = environment(escape=True).from_string("<td title='{{ label }}'>{{ label }}</td>").render(label=label)
    assert shown.count("<") == 2
    assert shown.count('"') == 0
    cell = _styled(pd.DataFrame({"label": [label]}), np.array([[False]]), "html").to_html()
    assert label not in cell
