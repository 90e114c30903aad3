"""The report: complete, self-contained, and drawn by a real browser."""

import base64
import hashlib
import io
import json
import re
import shutil
import socketserver
import subprocess
import threading
import urllib.parse
import xml.etree.ElementTree
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from stablevelocity.errors import UserError
from stablevelocity.reporting import registry
from stablevelocity.reporting.format import number, typeset
from stablevelocity.reporting.page import make_page
from stablevelocity.reporting.templates import environment

from . import synthetic
from .html_page import Page, page_of, read_page

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


@pytest.fixture(params=["digits", "minimal"])
def parsed(request) -> Page:
    return read_page(request.getfixturevalue(request.param))


def test_nothing_in_the_page_can_make_a_request(parsed):
    for tag in ("iframe", "object", "embed", "link", "video", "audio", "form"):
        assert parsed.all(tag) == []
    for tag, attrs in parsed.tags:
        for name in ("src", "srcset", "action", "data", "poster", "background"):
            if name in attrs:
                assert attrs[name].startswith(
                    ("data:image/png;base64,", "data:image/webp;base64,", "data:image/svg+xml,")
                )
        # Links are followed by a reader only: files beside the page, places in it, and the paper.
        assert "href" not in attrs or tag == "a"
        assert not attrs.get("href", "").startswith(("http:", "//", "file:", "javascript:"))
        assert not any(name.startswith("on") for name in attrs)
    assert {link["href"] for link in parsed.all("a") if ":" in link["href"]} == {"https://arxiv.org/abs/2602.05435"}


def test_the_policy_allows_the_one_script_and_no_request(digits):
    page = (digits / "report.html").read_text()
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(scripts) == page.count("<script") == 1
    known = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    (policy,) = [meta["content"] for meta in read_page(digits).all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{known}'" in policy
    assert not re.search(r"fetch|XMLHttp|WebSocket|import|eval|innerHTML", scripts[0])


def test_styles_load_nothing(digits):
    page = (digits / "report.html").read_text()
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert style
    assert "url(" not in style.group(1)
    assert "@import" not in style.group(1)


def test_every_figure_stands_in_the_page_with_words_for_the_blind(digits):
    """As SVG, and as a picture of a column's width for small screens; it knows its size before it is read."""
    parsed, page = read_page(digits), (digits / "report.html").read_text()
    images = parsed.all("img")
    assert len(images) == len(registry.figures(synthetic.digits()))
    for image, narrow in zip(images, parsed.all("source"), strict=True):
        assert len(image["alt"]) > 20
        drawn = xml.etree.ElementTree.fromstring(urllib.parse.unquote(image["src"].split(",", 1)[1]))
        assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
        _, _, width, height = map(float, drawn.attrib["viewBox"].split())
        assert float(image["width"]) / float(image["height"]) == pytest.approx(width / height, rel=0.01)
        png = base64.b64decode(narrow["srcset"].split(",", 1)[1])
        assert Image.open(io.BytesIO(png)).width == 650
    for name in registry.figures(synthetic.digits()):
        assert f'<a class="file" href="figures/{name}.svg">' in page
        assert (digits / f"figures/{name}.svg").exists()


def test_the_page_of_the_full_study_is_under_two_megabytes(digits):
    assert (digits / "report.html").stat().st_size < 2_000_000


def test_links_of_the_contents_lead_somewhere(parsed):
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for link in parsed.all("a"):
        assert not link["href"].startswith("#") or link["href"][1:] in ids


def test_links_to_files_lead_to_files(digits):
    for link in read_page(digits).all("a"):
        if not link["href"].startswith(("#", "https:")) and not link["href"].endswith(".provenance.json"):
            assert (digits / link["href"]).exists(), link["href"]


def test_every_claim_stands_in_the_table_with_its_verdict_and_effect(digits):
    claims = json.loads((digits / "claims.json").read_text())
    page = read_page(digits)
    header, *rows = page.tables["Claims of the paper with verdict, effect and the paper's value"]
    assert header == ["Claim", "Verdict", "Effect measured here", "The paper's value"]
    assert len(rows) == len(claims)
    counts = " ".join(page.text.split()).split("How sure ", 1)[1].split(" Each verdict", 1)[0]
    for verdict in {claim["verdict"] for claim in claims}:
        assert f"{sum(claim['verdict'] == verdict for claim in claims)} {verdict}" in counts
    for (told, verdict, effect, paper), claim in zip(rows, claims, strict=True):
        assert told.startswith(typeset(claim["paper_claim"]))
        assert typeset(claim["measured"]) in told
        assert typeset(claim["rule"]) in told
        assert verdict == f"{claim['verdict']} #"
        assert claim["value"] is None or effect.startswith(typeset(number(claim["value"])))
        assert paper == typeset(claim["published"] or "–")
        assert page.tags.count(("tr", {"role": "row", "id": f"claim-{claim['id']}"})) == 1


def test_the_plot_of_an_effect_shows_its_interval_to_scale():
    """The line of no effect in the middle, the farthest end at the margin, all else in proportion."""
    template = environment(escape=True).get_template("drawings.html.j2")
    for value, ends, at in ((-0.3, (-0.5, -0.1), 0), (0.02, (-0.01, 0.05), 0.05), (1.2, (0.9, 1.5), 1), (0, (0, 0), 0)):
        drawn = str(template.module.interval_plot(value, ends, at))  # pyright: ignore
        low, high = re.findall(r'class="bar" d="M([\d.]+) 8H([\d.]+)"', drawn)[0]
        middle = re.findall(r'cx="([\d.]+)"', drawn)[0]
        far = max(abs(value - at), abs(ends[0] - at), abs(ends[1] - at)) or 1
        for place, shown in ((ends[0], low), (ends[1], high), (value, middle)):
            assert float(shown) == pytest.approx(60 + 55 * (place - at) / far, abs=0.06)


def test_numbers_come_with_how_they_were_made(digits):
    page = read_page(digits)
    assert len(page.tables) > 10
    # One line of how under each table and figure, but the claims, whose rows have their own, and quoted verdicts.
    quoted = "Verdicts of the study evidence" in page.tables
    assert len(page.hows) == len(page.all("table")) + len(page.all("figure")) - 1 - quoted
    assert any("Euler, 30 steps, no guidance, random labels" in how for how in page.hows)
    assert any("guidance 1.8 for t in [0, 0.7]" in how for how in page.hows)
    table = pd.read_csv(digits / "tables/table2.csv").set_index(["arm", "step"]).loc[("cfm", 1500)]
    rows = page.tables["Table 2. All arms, no guidance"]
    row = next(row for row in rows if row[:3] == ["CFM", "cfm-s0, s1", "1,500"])
    assert row[rows[0].index("FID")] == f"{table['fid']:.2f} ± {table['fid_sd']:.2f}"


def test_the_settings_of_a_run_are_one_click_away(digits):
    study, page = synthetic.digits(), read_page(digits)
    for arm in study.arms:
        assert {"href": f"#settings-{arm}"} in page.all("a")
    assert "capacity: 128" in page.text
    assert f"steps: {study.training.steps}" in page.text


def test_text_is_typeset():
    for plain, shown in {
        "FID -0.855 (-24 %), 95 % -1.18 to -0.53": "FID −0.855 (−24 %), 95 % −1.18 to −0.53",
        "[-1, 1]": "[−1, 1]",
        "4.71e-38": "4.71 × 10⁻³⁸",
        "2e+06 +-0.03, t >= 0.7": "2 × 10⁶ ±0.03, t ≥ 0.7",
    }.items():
        assert typeset(plain) == shown
    for name in ("cfm-s0, step-00000650", "2026-11-26", "euler-control-xi0.7", "hash 12e45ab-12"):
        assert typeset(name) == name


def test_published_values_stand_on_their_own_ground(digits):
    page = (digits / "report.html").read_text()
    assert '<span class="badge paper">Published</span> Figure 1 of the paper' in page
    shown = re.sub(r'="data:[^"]*"', "", page)
    assert "<td>7.58</td>" in shown
    assert "7.58" not in re.sub(r'<tr class="paper">.*?</tr>', "", shown, flags=re.S)


def test_the_papers_tables_stand_in_the_page_with_their_verdicts(digits):
    """Each whole, though this study ran nothing of some; nothing measured stands in their rows."""
    page, text = read_page(digits), " ".join(read_page(digits).text.split())
    for name, title in registry.PAPER_TABLES.items():
        frame = pd.read_csv(digits / f"paper/{name}.csv")
        header, *rows = page.tables[title]
        assert header[-1] == "Verdict"
        verdicts = frame["verdict"].str.partition(":")[0].value_counts()
        for verdict, count in verdicts.items():
            assert f"{count} row{'s' if count > 1 else ''} {verdict}" in text.split(title, 1)[1].split(")", 1)[0]
        assert len([row for row in rows if row[-1]]) == len(frame)
    assert {row[-1] for row in page.tables[registry.PAPER_TABLES["table4"]][1:]} == {"not run"}


def test_another_study_of_digits_quotes_the_one_that_decides(digits, tmp_path, monkeypatch):
    """Its verdicts and effects stand in the first screen, and lead to its report; where it is missing, that is said."""
    (tmp_path / "config").symlink_to(synthetic.PUBLISHED.parent)
    shutil.copytree(digits, tmp_path / "results/digits")
    monkeypatch.chdir(tmp_path)
    evidence = tmp_path / "results/reference/evidence"
    evidence.mkdir(parents=True)
    page = page_of(synthetic.digits(), Path("results/digits"), Path("results/digits/report.html"))
    assert "not there: no results/reference/evidence/claims.json" in " ".join(page.text.split())
    claims = json.loads((digits / "claims.json").read_text())
    claims[0] |= {
        "verdict": "contradicted",
        "value": -0.2,
        "interval": [-0.31, -0.09],
        "unit": "made up",
        "headline": True,
    }
    (evidence / "claims.json").write_text(json.dumps(claims))
    page = page_of(synthetic.digits(), Path("results/digits"), Path("results/digits/report.html"))
    rows = page.tables["Verdicts of the study evidence"][1:]
    assert len(rows) == min(9, sum(claim["headline"] for claim in claims))
    assert rows[0] == [typeset(claims[0]["paper_claim"]), "contradicted", "−0.200 [−0.310 to −0.090] made up"]
    assert {"href": "../reference/evidence/report.html"} in page.all("a")
    # Before all else but the study's own answers.
    headings = page.text.index("What is known by now"), page.text.index("The claims", page.text.index("How sure"))
    assert headings[0] < headings[1]
    for name, found in (("evidence", False), ("digits-arms", True)):
        study = synthetic.digits().model_copy(update={"name": name})
        page = page_of(study, Path("results/digits"), Path(f"results/digits/{name}.html"))
        assert ("What is known by now" in page.text) == found


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
    assert len(page.all("script")) == 1
    assert not any("onclick" in attrs for attrs in page.all("b"))
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_an_unfinished_study_ends_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"the report needs tables/variance\.csv"):
        make_page(synthetic.digits(), tmp_path, tmp_path / "report.html")


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
