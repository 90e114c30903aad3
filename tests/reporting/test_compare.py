"""Comparing two runs, and the small copy that is kept."""

import json
import shutil

import pandas as pd
import pytest

from stablevelocity.errors import UserError
from stablevelocity.reporting.compare import compare
from stablevelocity.reporting.reference import LIMIT, make_reference


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
    assert {"report.html", "claims.json", "study.json", "provenance.json", "tables/table2.csv"} <= names
    assert not any(name.endswith(".pdf") for name in names)
    facts = json.loads((copy / "provenance.json").read_text())
    assert {"study_hash", "package_hash", "versions", "host", "made", "sha256"} <= set(facts)


def test_a_copy_made_again_drops_what_the_study_no_longer_has(digits, copy):
    (copy / "tables/old.csv").write_text("a\n1\n")
    (copy / "notes.md").write_text("kept")
    make_reference(digits, copy)
    assert not (copy / "tables/old.csv").exists()
    assert (copy / "notes.md").exists()


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


def test_a_folder_without_tables_ends_in_one_line(tmp_path, copy):
    with pytest.raises(UserError, match="no tables"):
        compare(tmp_path, copy)


def test_no_copy_of_an_unfinished_study(tmp_path, digits):
    (tmp_path / "x").mkdir()
    shutil.copyfile(digits / "study.json", tmp_path / "x/study.json")
    with pytest.raises(UserError, match=r"report\.html is missing"):
        make_reference(tmp_path / "x", tmp_path / "y")
