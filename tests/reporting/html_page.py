"""A page as its tags, its text, and the line of each table and figure that says how its numbers were made."""

import html.parser
from pathlib import Path

from stablevelocity.reporting.page import make_page
from stablevelocity.study import Study


class Page(html.parser.HTMLParser):
    """`tags` with their attributes; `text` without the style; `tables` by caption, each a list of rows of cells."""

    def __init__(self, content: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.hows: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._pieces: list[str] = []
        self._caption = ""
        self._rows: list[list[str]] = []
        self._in_style = False
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in_style = tag == "style"
        if tag in ("p", "caption", "th", "td"):
            self._pieces = []
        elif tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])

    def handle_endtag(self, tag):
        said = " ".join("".join(self._pieces).split())
        if tag == "caption":
            self._caption = said.removeprefix("Measured ").removeprefix("Published ")
        elif tag in ("th", "td"):
            self._rows[-1].append(said)
        elif tag == "table":
            self.tables[self._caption] = self._rows
        elif tag == "p" and said.startswith("How "):
            self.hows.append(said.removeprefix("How "))

    def handle_data(self, data):
        if not self._in_style:
            self.text += data
            self._pieces.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


def read_page(results: Path) -> Page:
    return Page((results / "report.html").read_text())


def page_of(study: Study, results: Path, out: Path) -> Page:
    """The page that `study` makes of finished results of another one with the same tables and figures."""
    make_page(study, results, out)
    return Page(out.read_text())
