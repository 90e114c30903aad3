"""The report: complete, self-contained, and drawn by a real browser."""

import base64
import json
import re
import shutil
import socketserver
import subprocess
import threading
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from stablevelocity.errors import UserError
from stablevelocity.reporting import registry
from stablevelocity.reporting.claims import summary_lines
from stablevelocity.reporting.make import make_figure
from stablevelocity.reporting.page import make_page

from . import synthetic
from .html_page import Page, page_of, read_page

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


@pytest.fixture(params=["digits", "minimal"])
def parsed(request) -> Page:
    return read_page(request.getfixturevalue(request.param))


def test_nothing_in_the_page_can_make_a_request(parsed):
    for tag in ("script", "iframe", "object", "embed", "link", "video", "audio", "form"):
        assert parsed.all(tag) == []
    for _, attrs in parsed.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
            if name in attrs:
                assert attrs[name].startswith(("data:image/png;base64,", "#"))
        assert not any(name.startswith("on") for name in attrs)
    policies = [meta["content"] for meta in parsed.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policies
    assert policies[0].startswith("default-src 'none'")


def test_styles_load_nothing(digits):
    page = (digits / "report.html").read_text()
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert style
    assert "url(" not in style.group(1)
    assert "@import" not in style.group(1)


def test_every_figure_stands_in_the_page_with_words_for_the_blind(digits):
    parsed = read_page(digits)
    images = parsed.all("img")
    assert len(images) == len(registry.figures(synthetic.digits()))
    for image in images:
        assert len(image["alt"]) > 20
        assert base64.b64decode(image["src"].split(",", 1)[1]).startswith(b"\x89PNG")


def test_links_of_the_contents_lead_somewhere(parsed):
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for link in parsed.all("a"):
        assert link["href"].removeprefix("#") in ids


def test_the_page_says_the_summary_that_the_terminal_says(digits):
    text = " ".join(read_page(digits).text.split())
    for line in summary_lines(digits)[1:]:
        assert " ".join(line.split("]", 1)[1].split()) in text


def test_numbers_come_with_how_they_were_made(digits):
    page = read_page(digits)
    assert len(page.tables) > 10
    # One line of how under each table and figure, and one for the summary.
    assert len(page.hows) == len(page.all("table")) + len(page.all("figure")) + 1
    assert any("Euler, 30 steps, no guidance, random labels" in how for how in page.hows)
    assert any("guidance 1.8 for t in [0, 0.7]" in how for how in page.hows)
    table = pd.read_csv(digits / "tables/table2.csv").set_index(["arm", "step"]).loc[("cfm", 1500)]
    rows = page.tables["Table 2. All arms, no guidance"]
    row = next(row for row in rows if row[:3] == ["CFM", "cfm-s0, s1", "1,500"])
    assert row[rows[0].index("FID")] == f"{table['fid']:.2f} ± {table['fid_sd']:.2f}"


def test_published_tables_are_marked(digits):
    page = (digits / "report.html").read_text()
    for title in ("Table 1 of the paper", "Table 2 of the paper", "Table 4 of the paper", "Figure 1 of the paper"):
        assert re.search(rf'<span class="badge paper">Published</span> {title}', page)
    assert "7.58" not in re.sub(r'<table class="published">.*?</table>', "", page, flags=re.S)


def test_a_study_without_the_toy_has_no_word_of_it(minimal):
    text = read_page(minimal).text
    assert "toy experiment" not in text.lower()
    assert "With one seed there is no interval" in text


def test_text_of_a_study_cannot_become_markup(tmp_path, minimal):
    """A label of an arm and a sentence of a claim both stand in the page, as the text that they are."""
    shutil.copytree(minimal, tmp_path / "x")
    study = synthetic.minimal()
    label = "<b onclick=alert(1)>CFM</b>"
    arms = {"cfm": study.arms["cfm"].model_copy(update={"label": label})}
    claims = json.loads((tmp_path / "x/claims.json").read_text())
    claims[0]["measured"] = "<script>1</script>"
    (tmp_path / "x/claims.json").write_text(json.dumps(claims))
    page = page_of(study.model_copy(update={"arms": arms}), tmp_path / "x", tmp_path / "x.html")
    assert label in page.text
    assert "<script>1</script>" in page.text
    assert page.all("b") == page.all("script") == []
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_an_unfinished_study_ends_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"the report needs tables/variance\.csv"):
        make_page(synthetic.digits(), tmp_path, tmp_path / "report.html")


def test_figures_come_as_pdf_and_png_at_page_width(digits):
    for name in registry.figures(synthetic.digits()):
        assert (digits / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF")
        with Image.open(digits / f"figures/{name}.png") as image:
            assert image.width == 1350
            assert image.height < 2500


def test_the_same_data_draws_the_same_bytes(tmp_path, digits):
    make_figure(synthetic.digits(), digits, "figure3b", tmp_path / "figure3b.png")
    for suffix in (".png", ".pdf"):
        assert (tmp_path / f"figure3b{suffix}").read_bytes() == (digits / f"figures/figure3b{suffix}").read_bytes()


# Services that Chromium looks for by itself whatever page it draws; not the hosts of fonts and scripts.
BROWSERS_OWN = re.compile(r"^(?!(fonts|ajax|www|maps|storage)\.).*\.(google|googleapis|gvt1)\.com$")


class Proxy(socketserver.ThreadingTCPServer):
    """Refuses every request and remembers which hosts were asked for."""

    allow_reuse_address = daemon_threads = True

    def __init__(self):
        self.hosts: set[str] = set()
        super().__init__(("127.0.0.1", 0), Refusal)


class Refusal(socketserver.StreamRequestHandler):
    def handle(self):
        words = self.rfile.readline().decode("latin-1").split()
        if len(words) > 1:
            self.server.hosts.add(words[1].removeprefix("http://").split("/")[0].split(":")[0])
        self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def draw(page: Path, folder: Path) -> tuple[Path, set[str]]:
    """Screenshot of a page by headless Chromium, and the hosts that the browser asked for."""
    shot = folder / f"{page.stem}.png"
    with Proxy() as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--no-first-run", "--hide-scrollbars",
            f"--proxy-server=127.0.0.1:{proxy.server_address[1]}", f"--user-data-dir={folder / page.stem}",
            f"--screenshot={shot}", "--window-size=1360,6000", page.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, capture_output=True, timeout=300, check=True)
        proxy.shutdown()
    return shot, proxy.hosts


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the page is not drawn")
def test_a_browser_draws_the_page_and_asks_nothing_of_any_server(tmp_path, digits):
    """A control page with one foreign image shows that a request would have been seen."""
    control = tmp_path / "control.html"
    control.write_text('<!doctype html><img src="http://canary.invalid/x.png">')
    _, hosts = draw(control, tmp_path)
    assert "canary.invalid" in hosts
    shot, hosts = draw(digits / "report.html", tmp_path)
    assert {host for host in hosts if not BROWSERS_OWN.search(host)} == set()
    with Image.open(shot) as image:
        colours = image.convert("RGB").resize((136, 600)).getcolors(100_000)
    # A blank or broken page has a handful of colours.
    assert colours
    assert len(colours) > 500
