"""Comparing two runs, and the small copy that is kept."""

import gzip
import json
import shutil
import zipfile
from html.parser import HTMLParser

import pandas as pd
import pytest

from stablevelocity.cli.verify import differences
from stablevelocity.errors import UserError
from stablevelocity.files import sha256
from stablevelocity.reporting import registry
from stablevelocity.reporting.compare import compare, write_comparison
from stablevelocity.reporting.index import make_index
from stablevelocity.reporting.reference import LIMIT, make_archive, make_reference
from stablevelocity.reporting.trace import find

from . import synthetic


@pytest.fixture
def copy(tmp_path, digits):
    make_reference(digits, tmp_path / "reference")
    return tmp_path / "reference"


def test_a_run_agrees_with_its_own_copy(digits, copy):
    found = compare(digits, copy)
    assert found.agrees
    assert len(found.cells) > 1000
    assert str(found).endswith("the two runs agree")


def test_other_studies_are_not_compared(digits, copy):
    facts = json.loads((copy / "study.json").read_text())
    (copy / "study.json").write_text(json.dumps({**facts, "name": "another"}))
    with pytest.raises(UserError, match=r"of different studies \(digits, another\)"):
        compare(digits, copy)


def test_the_copy_is_small_and_complete(copy):
    files = [file for file in copy.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < LIMIT
    names = {str(file.relative_to(copy)) for file in files}
    assert {"report.html", "claims.json", "study.json", "tables/table2.csv", "paper/table2.tex"} <= names
    assert not any(name.endswith(".pdf") for name in names)


def test_what_the_copy_says_of_itself_is_true_of_the_copy(copy):
    facts = json.loads((copy / "provenance.json").read_text())
    files = {str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file()}
    assert set(facts["sha256"]) == files - {"provenance.json"}
    assert all(sha256(copy / name) == checksum for name, checksum in facts["sha256"].items())
    jobs = json.loads(gzip.decompress((copy / "records.json.gz").read_bytes()))
    assert sum(one["jobs"] for one in facts["environments"]) == len(jobs)
    assert facts["first_job"] <= facts["last_job"] <= facts["copied"]
    # What its tables were made from is there: a number can be followed and computed again.
    for job in jobs:
        if job["verb"] == "table" and "stablevs_images" not in job["id"]:  # each image of a sweep: too large
            assert all((copy / name).exists() for name in job["inputs"])
    assert find(copy / "tables/table2.csv", "cfm, 500, ode", "fid").sources == [
        f"metrics/fidelity/cfm-s{seed}/step-00000500/ode.csv" for seed in (0, 1)
    ]


def test_a_copy_is_verified_by_the_checksums_that_it_holds(copy):
    assert list(differences(copy)) == []
    table = copy / "tables/table2.csv"
    table.write_text(table.read_text().replace(pd.read_csv(table, dtype=str)["fid"][0], "9.99", 1))
    (copy / "figures/figure1.png").unlink()
    found = list(differences(copy))
    assert len(found) == 3
    assert f"{copy}/tables/table2.csv: differs from its checksum in {copy}/provenance.json" in found
    assert f"{copy}/figures/figure1.png: is missing; {copy}/provenance.json has its checksum" in found
    assert any(line.startswith(f"{copy}/tables/table2.csv: row 1, fid: ") for line in found)


def test_a_copy_made_again_drops_what_the_study_no_longer_has(digits, copy):
    facts = json.loads((copy / "provenance.json").read_text())
    (copy / "tables/old.csv").write_text("a\n1\n")
    facts["sha256"]["tables/old.csv"] = "0" * 64
    (copy / "provenance.json").write_text(json.dumps(facts))
    (copy / "notes.md").write_text("kept")
    make_reference(digits, copy)
    assert not (copy / "tables/old.csv").exists()
    assert (copy / "notes.md").exists()


def test_no_record_of_a_copy_deletes_a_file_outside_of_it(digits, copy):
    other = copy.parent / "other.csv"
    other.touch()
    record = json.dumps({"sha256": {"../other.csv": "", str(other): ""}})
    (copy / "provenance.json").write_text(record)
    make_reference(digits, copy)
    assert other.exists()
    (copy / "provenance.json").write_text('{"sha256": 5}')
    with pytest.raises(UserError, match=r"provenance\.json: is damaged"):
        make_reference(digits, copy)


def test_a_study_is_not_its_own_copy(tmp_path, digits):
    shutil.copytree(digits, tmp_path / "x")
    with pytest.raises(UserError, match="is the study itself"):
        make_reference(tmp_path / "x", tmp_path / "y" / ".." / "x")
    assert not (tmp_path / "x" / "provenance.json").exists()


def change(folder, table: str, column: str, factor: float, rows=slice(None)) -> None:
    path = folder / f"tables/{table}.csv"
    frame = pd.read_csv(path)
    frame.loc[rows, column] *= factor
    frame.to_csv(path, index=False)


def test_a_mean_may_move_within_the_spread_over_seeds_and_no_further(tmp_path, digits, copy):
    new = tmp_path / "new"
    shutil.copytree(digits / "tables", new / "tables")
    first = pd.read_csv(new / "tables/table2.csv").iloc[0]
    within = 1 + 2 * first["fid_sd"] / first["fid"]
    change(new, "table2", "fid", within, rows=0)
    assert compare(new, copy).agrees
    change(new, "table2", "fid", 2.0, rows=0)
    found = compare(new, copy)
    assert not found.agrees
    wrong = found.cells[found.cells["verdict"] == "DIFFERS"]
    assert wrong[["table", "row", "column"]].to_numpy().tolist() == [["table2", "cfm, 500, ode", "fid"]]
    assert "DIFFERS" in str(found)


def test_times_are_shown_and_not_compared(tmp_path, digits, copy):
    new = tmp_path / "new"
    shutil.copytree(digits / "tables", new / "tables")
    change(new, "toy_cost", "seconds", 10.0)
    found = compare(new, copy)
    assert found.agrees
    assert set(found.cells.loc[found.cells["table"] == "toy_cost", "verdict"]) == {"not compared"}


def test_missing_rows_and_tables_are_told(tmp_path, digits, copy):
    new = tmp_path / "new"
    shutil.copytree(digits / "tables", new / "tables")
    frame = pd.read_csv(new / "tables/table2.csv")
    frame.iloc[1:].to_csv(new / "tables/table2.csv", index=False)
    (new / "tables/few_step.csv").unlink()
    found = compare(new, copy)
    assert not found.agrees
    assert found.missing == ["table few_step", "table2, row cfm, 500, ode"]


@pytest.mark.parametrize(
    ("cells", "told"), [("w,x\na,1", ["x, column v", "x, column x"]), ("w,v\na,oops", ["x, column v"])]
)
def test_columns_that_one_has_not_are_told(tmp_path, cells, told):
    for name, text in (("new", cells), ("old", "w,v\na,1")):
        (tmp_path / name / "tables").mkdir(parents=True)
        (tmp_path / name / "tables" / "x.csv").write_text(text + "\n")
    found = compare(tmp_path / "new", tmp_path / "old")
    assert not found.agrees
    assert [name for name in found.missing if "column" in name] == told


def test_a_folder_without_tables_ends_in_one_line(tmp_path, copy):
    with pytest.raises(UserError, match="no tables"):
        compare(tmp_path, copy)


def test_no_copy_of_an_unfinished_study(tmp_path, digits):
    (tmp_path / "x").mkdir()
    shutil.copyfile(digits / "study.json", tmp_path / "x/study.json")
    with pytest.raises(UserError, match=r"report\.html is missing"):
        make_reference(tmp_path / "x", tmp_path / "y")


def test_an_archive_is_a_crate_of_all_its_files_and_has_the_same_bytes_again(digits, tmp_path):
    for name in ("one.zip", "two.zip"):
        make_archive(digits, tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        archive.extractall(tmp_path / "all")
    everything = tmp_path / "all"
    names = {str(file.relative_to(everything)) for file in everything.rglob("*") if file.is_file()}
    assert {"report.html", "figures/figure1.pdf", "paper/table2.tex", "study.json", "records.json.gz"} <= names
    crate = json.loads((everything / "ro-crate-metadata.json").read_text())
    graph = {node["@id"]: node for node in crate["@graph"]}
    assert len(graph) == len(crate["@graph"])
    # The rules of RO-Crate 1.1: the descriptor, a root with these properties, and every reference inside is there.
    assert crate["@context"][0] == "https://w3id.org/ro/crate/1.1/context"
    assert graph["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    assert graph["ro-crate-metadata.json"]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert {"name", "description", "datePublished", "license", "hasPart"} <= set(graph["./"])
    parts = {part["@id"] for part in graph["./"]["hasPart"]}
    assert parts == names - {"ro-crate-metadata.json"}
    for name in parts:
        assert graph[name]["@type"] == "File"
        assert graph[name]["sha256"] == sha256(everything / name)
        assert int(graph[name]["contentSize"]) == (everything / name).stat().st_size
    assert graph["#run"]["instrument"]["@id"] in graph


def test_an_archive_can_be_traced_like_the_study(digits, tmp_path):
    make_archive(digits, tmp_path / "digits.zip")
    with zipfile.ZipFile(tmp_path / "digits.zip") as archive:
        archive.extractall(tmp_path)
    ours, theirs = (find(folder / "tables/table2.csv", "CFM", "fid") for folder in (digits, tmp_path))
    assert ours.jobs == theirs.jobs
    assert ours.sources == theirs.sources


class Links(HTMLParser):
    """Text, ids, addresses of links and images of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.text, self.links, self.images = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.links += [named["href"]] if tag == "a" else []
        self.images += [named["src"]] if tag == "img" else []

    def handle_data(self, data):
        self.text.append(data.strip())


def test_a_comparison_is_also_a_page_of_every_cell_and_both_figures(tmp_path, digits):
    new = tmp_path / "new"
    for folder in ("tables", "figures"):
        shutil.copytree(digits / folder, new / folder)
    change(new, "table2", "fid", 2.0, rows=0)
    (new / "figures/figure1.png").unlink()
    found = write_comparison(new, digits, tmp_path / "compared.html")
    page = Links((tmp_path / "compared.html").read_text())
    assert page.text.count("DIFFERS") == 1
    assert page.text.count("same") == (found.cells["verdict"] == "same").sum()
    drawn = len(registry.figures(synthetic.digits()))
    assert len(page.images) == 2 * drawn - 1
    assert all(image.startswith("data:image/png;base64,") for image in page.images)
    assert f"{new}: no such figure" in page.text


def test_the_index_lists_studies_and_copies_with_what_is_known_of_each(tmp_path, digits, copy):
    results = tmp_path / "results"
    (results / "reference").mkdir(parents=True)
    (results / "digits").symlink_to(digits)
    (results / "reference/digits").symlink_to(copy)
    (results / "begun").mkdir()
    shutil.copy(digits / "study.json", results / "begun")
    (results / "old").mkdir()
    (results / "old/study.json").write_text('{"name": "old", "no_such_section": {}}')
    page = Links(make_index(results).read_text())
    assert [link for link in page.links if link[0] != "#"] == ["digits/report.html", "reference/digits/report.html"]
    assert "begun, not finished" in page.text
    assert any("cannot be read by this version" in text and "no_such_section" in text for text in page.text)
    claims = json.loads((digits / "claims.json").read_text())
    supported = sum(claim["verdict"] == "supported" for claim in claims)
    assert sum(f"{supported} supported" in text for text in page.text) == 2
    facts = json.loads((copy / "provenance.json").read_text())
    assert (facts["commit"] or facts["package_hash"]) in page.text
