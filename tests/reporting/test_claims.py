"""Verdicts follow from numbers; claims.json and the summary say them."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import yaml

from stablevelocity.reporting.claims import TEXTS, summary_lines
from stablevelocity.reporting.make import make_claims, make_table
from stablevelocity.reporting.verdicts import by_interval

from . import synthetic

UNKNOWN = "inconclusive at this scale"


def by_id(results) -> dict:
    return {claim["id"]: claim for claim in json.loads((results / "claims.json").read_text())}


@pytest.mark.parametrize(
    "low, high, side, verdict",
    [
        (-0.3, -0.1, "below", "supported"),
        (-0.3, -0.1, "above", "not supported"),
        (0.1, 0.2, "below", "not supported"),
        (0.1, 0.2, "above", "supported"),
        (-0.1, 0.2, "below", UNKNOWN),
        (-0.1, 0.0, "below", UNKNOWN),
        (0.0, 0.1, "above", UNKNOWN),
        (math.nan, math.nan, "below", UNKNOWN),
        # Several intervals: all on one side, all on the other, or neither.
        ([-2, -3], [-1, -1], "below", "supported"),
        ([1, 2], [3, 3], "below", "not supported"),
        ([-2, 1], [-1, 3], "below", UNKNOWN),
        ([-2, math.nan], [-1, math.nan], "below", UNKNOWN),
    ],
)
def test_a_verdict_is_the_side_that_the_intervals_lie_on(low, high, side, verdict):
    assert by_interval(low, high, side) == verdict
    # The bound moves with the numbers.
    assert by_interval(np.add(low, 5), np.add(high, 5), side, 5) == verdict


def test_claims_say_what_was_put_into_the_numbers(digits):
    claims = by_id(digits)
    assert claims["stablevm"]["verdict"] == "supported"
    assert claims["repa-high"]["verdict"] == "supported"
    assert claims["toy-error-cfm"]["verdict"] == "supported"
    assert claims["split-moves-with-dimension"]["verdict"] == "supported"
    # The synthetic Euler sweep has StableVS equal to control, and its mixtures have no variance in the empirical set.
    assert claims["stablevs-step-euler"]["verdict"] == "not supported"
    assert claims["low-variance-of-the-law"]["verdict"] == "not supported"
    # Heun's control is 1.2 dB better than StableVS.
    assert claims["stablevs-step-heun"]["value"] == pytest.approx(-1.2)
    assert claims["stablevs-step-heun"]["verdict"] == "not supported"


def test_every_claim_says_how_it_was_measured(digits, minimal):
    for results in (digits, minimal):
        for claim in by_id(results).values():
            assert {"id", "paper_claim", "measured", "interval", "verdict", "how", "scope"} <= set(claim)
            assert claim["verdict"] in ("supported", "not supported", UNKNOWN)
            for name in ("paper_claim", "measured", "unit", "rule", "how", "line", "scope"):
                assert claim[name]
    how = by_id(digits)["stablevm"]["how"]
    assert {"runs", "seeds", "solver", "steps", "guidance", "samples"} <= set(how)


def test_every_text_of_a_claim_is_complete():
    for name, texts in yaml.safe_load(TEXTS.read_text()).items():
        assert {"paper_claim", "measured", "unit", "rule", "line"} <= set(texts), name


def test_one_seed_concludes_nothing_about_arms(tmp_path, digits):
    study = synthetic.digits(seeds=[0])
    results = synthetic.make(study, tmp_path)
    for table in (digits / "tables").glob("*.csv"):
        (results / "tables").mkdir(exist_ok=True)
        (results / "tables" / table.name).write_bytes(table.read_bytes())
    make_table(study, results, "differences", results / "tables/differences.csv")
    make_claims(study, results, results / "claims.json")
    claims = by_id(results)
    for name in ("stablevm", "repa", "repa-high", "repa-stable"):
        assert claims[name]["verdict"] == UNKNOWN
        assert claims[name]["interval"] is None
        assert "no interval from one seed" in claims[name]["line"]


def test_a_verdict_changes_with_the_numbers(tmp_path, digits):
    """Turned effects turn the verdict: nothing is set by hand."""
    (tmp_path / "tables").mkdir()
    for file in (digits / "tables").glob("*.csv"):
        table = pd.read_csv(file)
        if file.stem == "differences":
            for column in ("difference", "low", "high", "paired_low", "paired_high", "relative"):
                table[column] = -table[column]
            table[["low", "high"]] = table[["high", "low"]].to_numpy()
        table.to_csv(tmp_path / "tables" / file.name, index=False)
    make_claims(synthetic.digits(), tmp_path, tmp_path / "claims.json")
    assert by_id(digits)["stablevm"]["verdict"] == "supported"
    assert by_id(tmp_path)["stablevm"]["verdict"] == "not supported"


def test_the_summary_is_at_most_ten_readable_lines(digits, minimal):
    lines = summary_lines(digits)
    assert len(lines) == 10
    assert all("\n" not in line and len(line) <= 135 for line in lines)
    claims = by_id(digits)
    supported = sum(claim["verdict"] == "supported" for claim in claims.values())
    assert lines[0].startswith(f"{len(claims)} claims")
    assert f"{supported} supported" in lines[0]
    assert 1 <= len(summary_lines(minimal)) <= 10
