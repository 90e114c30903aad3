"""The way back from a number to what it was made from."""

import json
import re
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest

from stablevelocity.errors import UserError
from stablevelocity.files import sha256
from stablevelocity.reporting.format import plus_minus
from stablevelocity.reporting.page import make_page
from stablevelocity.reporting.trace import find, trace

from . import synthetic


def verbs(found) -> list[str]:
    return [job.verb for job in found.jobs]


def test_a_number_leads_to_the_files_of_its_own_arm_step_and_sampler(digits):
    found = find(digits / "tables/table2.csv", "stablevm, 1500, ode", "fid")
    assert found.row == "stablevm, 1500, ode"
    assert found.sources == [f"metrics/fidelity/stablevm-s{seed}/step-00001500/ode.csv" for seed in (0, 1)]
    assert (
        found.value == pd.read_csv(digits / "tables/table2.csv").query("arm == 'stablevm' & step == 1500")["fid"].item()
    )
    # The table's own job first, then two seeds of metrics, images and weights, and the latents that they share.
    assert verbs(found)[0] == "table"
    assert sorted(verbs(found)[1:]) == ["evaluate"] * 2 + ["latent-manifest"] + ["sample"] * 2 + ["train"] * 2
    assert {job.id.split("/")[1] for job in found.jobs if job.verb == "train"} == {"stablevm-s0", "stablevm-s1"}


def test_a_job_stands_before_those_that_made_its_inputs(digits):
    jobs = find(digits / "tables/table2.csv", "cfm, 500, ode", "is").jobs
    places = {file: place for place, job in enumerate(jobs) for file in job.outputs}
    for place, job in enumerate(jobs):
        assert all(places[file] > place for file in job.inputs if file in places)


def test_checksums_are_those_of_the_files(digits):
    for job in find(digits / "tables/table2.csv", "cfm, 500, ode", "is").jobs:
        for file, checksum in job.outputs.items():
            assert sha256(digits / file) == checksum


def test_a_difference_leads_to_all_arms_that_its_interval_pools(digits):
    own = find(digits / "tables/table2.csv", "stablevm, 1500, ode", "fid").sources
    pooled = find(digits / "tables/table2.csv", "stablevm, 1500, ode", "fid_from_baseline").sources
    assert set(own) < set(pooled)
    assert len(pooled) == 6 * 2
    assert all("step-00001500/ode" in name for name in pooled)
    compared = find(digits / "tables/differences.csv", "stablevm, 1500, sde, fid", "difference").sources
    assert {name.split("/")[2] for name in compared} == {"stablevm-s0", "stablevm-s1", "cfm-s0", "cfm-s1"}


def test_a_row_of_one_file_leads_to_that_file(digits):
    assert find(digits / "tables/toy_error.csv", "stablevm, 0.2", "error").sources == ["toy/error.csv"]


def test_a_row_is_found_by_its_label_and_the_last_step_is_taken(digits):
    assert find(digits / "tables/table2.csv", "REPA, t < 0.7", "fid").row == "repa-low, 1500, ode"


def test_the_command_is_the_verb_without_what_the_workflow_adds(digits):
    job = find(digits / "tables/table2.csv", "CFM", "fid").jobs[0]
    assert job.command == "stablevelocity table --output tables/table2.csv"


def test_text_names_each_kind_of_job_once_and_json_has_all(digits):
    found = find(digits / "tables/table2.csv", "CFM", "fid")
    text = "\n".join(found.lines())
    assert text.startswith(f"table2, row cfm, 1500, ode, fid = {found.value}")
    assert text.count("stablevelocity evaluate") == 1
    assert "(and 1 more like it)" in text
    content = json.loads(found.as_json())
    assert len([job for job in content["jobs"] if job["verb"] == "evaluate"]) == 2
    assert content["value"] == found.value


def test_what_cannot_be_traced_ends_in_one_line(digits, tmp_path):
    with pytest.raises(UserError, match=r"--row StableVN: no such row .* expected one of: cfm, 500, ode;"):
        find(digits / "tables/table2.csv", "StableVN", "fid")
    with pytest.raises(UserError, match=r"--column fed: no such column .* expected one of arm, label"):
        find(digits / "tables/table2.csv", "StableVM", "fed")
    with pytest.raises(UserError, match=r"expected results/<study>/tables/<table>.csv"):
        find(digits / "claims.json", "StableVM", "fid")
    (tmp_path / "tables").mkdir()
    shutil.copy(digits / "tables/table2.csv", tmp_path / "tables")
    with pytest.raises(UserError, match="no record of the job"):
        find(tmp_path / "tables/table2.csv", "StableVM", "fid")


def test_every_number_of_a_table_can_be_traced(digits):
    """What the page asks for: each measured cell has its sources, found without reading a file twice."""
    table = pd.read_csv(digits / "tables/table2.csv")
    for _, row in table.iterrows():
        for column in ("fid", "is", "precision", "recall", "fid_from_baseline"):
            assert trace(digits, "table2", row, column).sources


class Page(HTMLParser):
    """Links of the cells of tables, by their text; and by id, the links of each part that they lead to."""

    def __init__(self, text: str):
        super().__init__()
        self.cells, self.parts = [], {}
        self.tag, self.part, self.link = "", "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if re.fullmatch(r"[fj]\d+", named.get("id", "")):
            self.part = named["id"]
            self.parts[self.part] = []
        elif tag in ("td", "li", "p"):
            self.tag = tag
        elif tag == "a" and named.get("href", "").startswith("#"):
            self.link = named["href"][1:]

    def handle_data(self, data):
        if self.link is not None and self.tag == "td" and data != "#":
            self.cells.append((data, self.link))
        elif self.link is not None and self.part:
            self.parts[self.part].append((data, self.link))

    def handle_endtag(self, tag):
        self.tag = "" if tag == self.tag else self.tag
        self.link = None if tag == "a" else self.link


def test_in_the_page_each_number_leads_to_its_files_and_on_to_their_jobs(digits):
    page = Page((digits / "report.html").read_text())
    assert len(page.cells) > 300
    assert {link for _, link in page.cells} <= set(page.parts)
    row = pd.read_csv(digits / "tables/table2.csv").query("arm == 'stablevm' & step == 1500").iloc[0]
    link = dict(page.cells)[plus_minus(row["fid"], row["fid_sd"])]
    files = dict(page.parts[link])
    assert list(files) == [f"metrics/fidelity/stablevm-s{seed}/step-00001500/ode.csv" for seed in (0, 1)]
    # And each of these to the images that it was computed from, and so on.
    images = dict(page.parts[files["metrics/fidelity/stablevm-s0/step-00001500/ode.csv"]])
    assert list(images) == ["samples/stablevm-s0/step-00001500/ode/shard-00000.safetensors"]
    assert list(dict(page.parts[next(iter(images.values()))])) == ["runs/stablevm-s0/metrics.csv"]


def test_a_page_without_records_has_numbers_without_links(minimal, tmp_path):
    shutil.copytree(minimal, tmp_path / "minimal", ignore=shutil.ignore_patterns("*.provenance.json"))
    study = synthetic.minimal()
    make_page(study, tmp_path / "minimal", tmp_path / "minimal/report.html")
    text = (tmp_path / "minimal/report.html").read_text()
    assert not Page(text).cells
    assert 'id="origins"' not in text
