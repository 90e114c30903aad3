"""Verdicts follow from intervals."""

import json
import math

import pandas as pd
import pytest

from stablevelocity.reporting.claims import judge, make_claims, summary_lines

from . import synthetic


def by_id(results) -> dict:
    return {claim["id"]: claim for claim in json.loads((results / "claims.json").read_text())}


@pytest.mark.parametrize(
    "low, high, claimed, verdict",
    [
        (-0.3, -0.1, "below 0", "supported"),
        (-0.3, -0.1, "above 0", "not supported"),
        (0.1, 0.2, "below 0", "not supported"),
        (-0.1, 0.2, "below 0", "inconclusive at this scale"),
        (-0.1, 0.0, "below 0", "inconclusive at this scale"),
        (math.nan, math.nan, "below 0", "inconclusive at this scale"),
    ],
)
def test_a_verdict_is_the_side_of_zero_the_interval_lies_on(low, high, claimed, verdict):
    assert judge(low, high, claimed=claimed) == verdict


def test_claims_say_what_was_put_into_the_numbers(digits):
    claims = by_id(digits)
    assert claims["stablevm"]["verdict"] == "supported"
    assert claims["repa-high"]["verdict"] == "supported"
    assert claims["toy-error-cfm"]["verdict"] == "supported"
    assert claims["split-moves-with-dimension"]["verdict"] == "supported"
    # The synthetic Euler sweep has StableVS equal to control, and its mixtures have no variance in the empirical law.
    assert claims["stablevs-step-euler"]["verdict"] == "not supported"
    assert claims["low-variance-of-the-law"]["verdict"] == "not supported"


def test_every_claim_says_how_it_was_measured(digits, minimal):
    for results in (digits, minimal):
        for claim in by_id(results).values():
            assert {"id", "paper_claim", "measured", "interval", "verdict", "how", "scope"} <= set(claim)
            assert claim["verdict"] in ("supported", "not supported", "inconclusive at this scale")
            assert claim["how"]
            assert claim["scope"]
            assert claim["rule"]
    how = by_id(digits)["stablevm"]["how"]
    assert {"runs", "seeds", "solver", "steps", "guidance", "samples"} <= set(how)


def test_one_seed_concludes_nothing_about_arms(tmp_path):
    study = synthetic.digits(seeds=[0])
    results = synthetic.make(study, tmp_path)
    from stablevelocity.reporting.tables import make_table

    make_table(study, results, "differences", results / "tables/differences.csv", published=synthetic.PUBLISHED)
    make_claims(study, results, results / "claims.json")
    claims = by_id(results)
    for name in ("stablevm", "repa", "repa-high", "repa-stable"):
        assert claims[name]["verdict"] == "inconclusive at this scale"
        assert claims[name]["interval"] is None


def test_a_verdict_changes_with_the_numbers(tmp_path, digits):
    """Turned effects turn the verdict: nothing is set by hand."""
    study = synthetic.digits()
    table = pd.read_csv(digits / "tables/differences.csv")
    for column in ("difference", "low", "high", "paired_low", "paired_high", "relative"):
        table[column] = -table[column]
    table[["low", "high"]] = table[["high", "low"]].to_numpy()
    (tmp_path / "tables").mkdir()
    table.to_csv(tmp_path / "tables/differences.csv", index=False)
    make_claims(study, tmp_path, tmp_path / "claims.json")
    assert by_id(tmp_path)["stablevm"]["verdict"] == "not supported"


def test_the_summary_is_at_most_ten_readable_lines(digits, minimal):
    lines = summary_lines(digits)
    assert len(lines) == 10
    assert all("\n" not in line and len(line) <= 130 for line in lines)
    claims = by_id(digits)
    supported = sum(claim["verdict"] == "supported" for claim in claims.values())
    assert lines[0].startswith(f"{len(claims)} claims")
    assert f"{supported} supported" in lines[0]
    assert 1 <= len(summary_lines(minimal)) <= 10
