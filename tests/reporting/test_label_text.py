"""The text of a label is text wherever it is shown: in LaTeX, in HTML, in a spreadsheet."""

import pytest

from stablevelocity.reporting.paper_formats import Line, Shown, to_html, to_latex
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


def table(label: str) -> Shown:
    """A table of one row with a label."""
    line = Line("measured", ["1"], [False], "not run")
    return Shown(["Method", "Line", "FID", "Verdict"], [([label], [line])], [])


def is_plain(tex: str) -> bool:
    """Whether LaTeX would read neither a command of the text nor a special character in it."""
    for known in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}"):
        tex = tex.replace(known, "")
    for special in "&%$#_{}":
        tex = tex.replace(f"\\{special}", "")
    return not set(tex) & set("\\&%$#_{}~^")


@pytest.mark.parametrize("label", COMMANDS)
def test_a_label_is_no_command_of_latex(label):
    text = to_latex(label, table(label))
    (row,) = text.split("\\midrule\n")[1].split("\n\\bottomrule")[0].splitlines()
    cells = row.removesuffix(r" \\").split(" & ")
    assert cells[-3:] == ["measured", "1", "not run"]
    assert is_plain(" & ".join(cells[:-3]))
    (caption,) = [line for line in text.splitlines() if line.startswith("\\caption")]
    assert is_plain(caption.removeprefix("\\caption{").removesuffix("}\\smallskip"))


@pytest.mark.parametrize("label", ["<script>alert(1)</script>", '" onload="x', "a & b", "<b>x"])
def test_a_label_is_no_element_of_the_page(label):
    shown = environment(escape=True).from_string("<td title='{{ label }}'>{{ label }}</td>").render(label=label)
    assert shown.count("<") == 2
    assert shown.count('"') == 0
    assert label not in to_html(label, table(label))
