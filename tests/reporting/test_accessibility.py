"""The page for those who cannot see it, or not well: what axe-core checks, computed here."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from stablevelocity.reporting.templates import TEMPLATES

CSS = (TEMPLATES / "page.css").read_text()
LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+): *(#[0-9a-f]{3,6})", block))
    for block in re.findall(r":root \{([^}]*--[^}]*)\}", CSS)[:2]
)
GROUNDS = {
    "ink": ("ground", "card", "head", "banner", "paper-ground", "paper-head"),
    "soft": ("ground", "card", "head", "banner", "same-ground"),
    "accent": ("ground", "card", "head", "banner", "same-ground"),
    "paper": ("paper-ground", "paper-head"),
    **{name: (f"{name}-ground",) for name in ("yes", "no", "open", "same")},
}
"""By the colour of text: what it stands on somewhere in the page."""


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's ratio: 21 for black on white."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_ratio_is_that_of_the_standard():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    # The lightest grey that the standard's authors pass on white.
    assert contrast("#767676", "#fff") >= 4.5 > contrast("#777777", "#fff")


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_every_colour_of_text_has_contrast_aa_on_every_ground(colours):
    for text, grounds in GROUNDS.items():
        for ground in grounds:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast("#ffffff", colours["top"]) >= 4.5
    assert contrast("#b9cbe0", colours["top"]) >= 4.5


def test_every_colour_of_the_page_is_one_of_those():
    """Besides those for paper, the band at the top, and frames."""
    assert set(LIGHT) == set(DARK)
    rules = re.sub(r"@media print \{.*", "", re.sub(r":root \{[^}]*\}", "", CSS), flags=re.DOTALL)
    for colour in re.findall(r"(?<![-\w])(?:color|background): (#[0-9a-f]+)", rules):
        assert colour in ("#fff", "#000", "#b9cbe0"), colour


class Outline(HTMLParser):
    """Headings, ids, cells and images of a page; tables by whether each has a caption."""

    def __init__(self, content: str):
        super().__init__()
        self.headings: list[int] = []
        self.tags: list[tuple[str, dict]] = []
        self.captions: list[bool] = []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "table":
            self.captions.append(False)
        if tag == "caption":
            self.captions[-1] = True


@pytest.fixture(params=["digits", "minimal"])
def outline(request) -> Outline:
    return Outline((request.getfixturevalue(request.param) / "report.html").read_text())


def test_headings_begin_with_one_and_leave_no_level_out(outline):
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(outline.headings))


def test_tables_have_captions_and_every_heading_cell_a_scope(outline):
    assert outline.captions
    assert all(outline.captions)
    cells = [attrs for tag, attrs in outline.tags if tag == "th"]
    assert {attrs.get("scope") for attrs in cells} == {"col", "row"}


def test_ids_are_unique_and_pictures_have_words(outline):
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert all(attrs.get("alt") for tag, attrs in outline.tags if tag == "img")
    for attrs in [attrs for tag, attrs in outline.tags if tag == "svg"]:
        assert attrs.get("aria-label") or attrs.get("aria-hidden") == "true"


def test_what_scrolls_is_reached_by_keyboard_and_has_a_name(outline):
    regions = [attrs for _, attrs in outline.tags if attrs.get("role") == "region"]
    assert len(regions) > 3
    assert all(attrs["aria-label"] and attrs["tabindex"] == "0" for attrs in regions)
    assert all(attrs.get("tabindex") == "0" for tag, attrs in outline.tags if tag == "pre")


def test_the_page_names_its_language_and_landmarks(outline):
    tags = [tag for tag, _ in outline.tags]
    assert dict(outline.tags)["html"]["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer"):
        assert tags.count(landmark) == 1
