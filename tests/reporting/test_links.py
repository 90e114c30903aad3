"""Links to files lead somewhere: in a copy of a study wherever it lies, and in the copies of this repository."""

import zipfile
from pathlib import Path

import pytest

from stablevelocity.reporting.reference import make_archive, make_reference

from .html_page import Page

COPIES = sorted((Path(__file__).parents[2] / "results/reference").glob("*/report.html"))


def links(report: Path) -> list[str]:
    """Addresses of the files that a page leads to. Asserts that each link of the page leads somewhere."""
    page = Page(report.read_text())
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    addresses = [attrs["href"] for attrs in page.all("a") if not attrs["href"].startswith("https://")]
    for address in addresses:
        assert address[1:] in ids if address.startswith("#") else (report.parent / address).exists(), address
    return [address for address in addresses if not address.startswith("#")]


@pytest.mark.parametrize("report", COPIES, ids=lambda report: report.parent.name)
def test_every_link_of_a_committed_page_leads_somewhere(report):
    links(report)


def test_a_copy_has_the_links_that_hold_where_it_lies(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = Path("results/reference/digits")
    make_reference(digits, copy)
    addresses = links(copy / "report.html")
    ways = {
        name: next(one for one in addresses if one.endswith(name)) for name in ("/README.md", "evidence/report.html")
    }
    assert all((copy / way).resolve().is_file() for way in ways.values())
    assert {"claims.json", "tables/", "tables/table2.csv", "paper/table2.tex", "figures/figure1.png"} <= set(addresses)
    # What the copy does not hold has neither link nor button.
    assert not any(name.endswith((".svg", ".pdf", ".provenance.json")) for name in addresses)
    assert "SVG" not in Page((copy / "report.html").read_text()).text


def test_what_is_handed_on_has_links_to_its_own_files_alone(digits, tmp_path):
    make_archive(digits, tmp_path / "digits.zip")
    with zipfile.ZipFile(tmp_path / "digits.zip") as archive:
        archive.extractall(tmp_path)
    addresses = links(tmp_path / "report.html")
    assert not any(address.startswith("..") for address in addresses)
    assert {"figures/figure1.svg", "figures/figure1.pdf", "figures/figure1.png"} <= set(addresses)
    # The words of a sentence stay.
    assert "how to read this page" in Page((tmp_path / "report.html").read_text()).text
