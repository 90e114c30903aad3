"""A page as its tags, its text, and the line of each table and figure that says how its numbers were made."""

import html.parser
from pathlib import Path

from stablevelocity.reporting.page import make_page
from stablevelocity.study import Study


class Page(html.parser.HTMLParser):
    """`tags` with their attributes; `text` without style and script; `tables` by caption, each a list of rows of cells.

    `hows`: what a reader is told of how the numbers of each table and figure were made, its section's words included.
    """

    def __init__(self, content: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.hows: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._sections: dict[str, str] = {}
        self._pieces: list[str] = []
        self._caption = self._how = self._section = ""
        self._rows: list[list[str]] = []
        self._unread = self._is_how = self._in_cell = False
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append((tag, given))
        self._unread = tag in ("style", "script")
        if tag in ("caption", "th", "td") or (tag == "p" and not self._in_cell):
            self._pieces = []
        self._in_cell = self._in_cell or tag in ("th", "td")
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        if tag == "details":
            self._section = (given.get("id") or "").removeprefix("how-") if given.get("class") == "how" else ""
        if tag == "p":
            self._is_how, self._how = given.get("class") == "how" and "id" not in given, ""
        if tag == "a" and self._is_how and given["href"].startswith("#how-"):
            self._how = self._sections[given["href"].removeprefix("#how-")] + " "

    def handle_endtag(self, tag):
        said = " ".join("".join(self._pieces).split())
        if tag == "caption":
            self._caption = said.removeprefix("Measured ").removeprefix("Published ").split(" # ")[0]
        elif tag in ("th", "td"):
            self._rows[-1].append(said)
            self._in_cell = False
        elif tag == "table":
            self.tables[self._caption] = self._rows
        elif tag == "p" and self._is_how:
            self.hows.append(self._how + said)
            self._is_how = False
        elif tag == "p" and self._section:
            self._sections[self._section], self._section = said, ""

    def handle_data(self, data):
        if not self._unread:
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
