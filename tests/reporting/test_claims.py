"""Verdicts follow from numbers; claims.json and the summary say them."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import yaml

from stablevelocity.reporting.claims import TEXTS, summary_lines
from stablevelocity.reporting.make import make_claims, make_table
from stablevelocity.reporting.statistics import Estimate, t_factor
from stablevelocity.reporting.verdicts import MARKS, by_effect, holm

from . import synthetic

UNKNOWN = "open"


def by_id(results) -> dict:
    return {claim["id"]: claim for claim in json.loads((results / "claims.json").read_text())}


def effects(lows, highs) -> list[Estimate]:
    """Estimates with these 95 % intervals."""
    pairs = zip(np.atleast_1d(lows), np.atleast_1d(highs), strict=True)
    return [Estimate((low + high) / 2, (high - low) / 2 / t_factor(4), 4) for low, high in pairs]


@pytest.mark.parametrize(
    "low, high, side, verdict",
    [
        (-0.3, -0.1, "below", "supported"),
        (-0.3, -0.1, "above", "contradicted"),
        (0.1, 0.2, "below", "contradicted"),
        (0.1, 0.2, "above", "supported"),
        (-0.1, 0.2, "below", UNKNOWN),
        (-0.1, 1e-9, "below", UNKNOWN),
        (math.nan, math.nan, "below", UNKNOWN),
        # Several intervals: all on one side, all on the other, or neither.
        ([-2, -3], [-1, -1], "below", "supported"),
        ([1, 2], [3, 3], "below", "contradicted"),
        ([-2, 1], [-1, 3], "below", UNKNOWN),
        ([-2, math.nan], [-1, math.nan], "below", UNKNOWN),
    ],
)
def test_a_verdict_is_the_side_that_the_intervals_lie_on(low, high, side, verdict):
    assert by_effect(effects(low, high), side).verdict == verdict
    # The bound moves with the numbers.
    assert by_effect(effects(np.add(low, 5), np.add(high, 5)), side, 5).verdict == verdict


def test_a_bootstrap_decides_by_its_percentiles():
    means = np.linspace(0.1, 1.1, 1001)
    effect = Estimate(0.6, 0.3, resampled=means)
    low, high = effect.bounds()
    assert (low, high) == pytest.approx((0.125, 1.075))
    assert by_effect(effect, "above", low - 0.005).verdict == "supported"
    assert by_effect(effect, "above", low + 0.005).verdict == UNKNOWN
    assert by_effect(effect, "above", high + 0.005).verdict == "contradicted"


def test_equivalence_takes_two_one_sided_tests():
    """Equivalent where the 90 % interval lies within the margin; a small difference that is sure can be both."""
    sure = Estimate(0.004, 0.001, 4)
    assert by_effect(sure, "below", margin=0.02).verdict == "equivalent"
    assert by_effect(sure, "below").verdict == "contradicted"
    low, high = Estimate(0.004, 0.006, 4).bounds(0.9)
    edge = max(abs(low), high)
    assert by_effect(Estimate(0.004, 0.006, 4), "below", margin=edge * 1.001).verdict == "equivalent"
    assert by_effect(Estimate(0.004, 0.006, 4), "below", margin=edge * 0.999).verdict == UNKNOWN
    # All times must lie within.
    assert by_effect([sure, Estimate(0.03, 0.001, 4)], "below", margin=0.02).verdict == "contradicted"


def test_of_several_the_one_nearest_to_the_margin_is_told():
    effects = [Estimate(0.004, 0.001, 4), Estimate(-0.009, 0.001, 4), Estimate(0.001, 0.001, 4)]
    outcome = by_effect(effects, "below", margin=0.02)
    assert (outcome.verdict, outcome.effect) == ("equivalent", effects[1])


def test_holms_correction_is_that_of_the_textbook():
    # Holm (1979): the smallest p times n, the next times n - 1, and never below the one before.
    assert holm([0.01, math.nan, 0.04, 0.03, 0.005]) == pytest.approx([0.03, math.nan, 0.06, 0.06, 0.02], nan_ok=True)
    assert holm([0.6, 0.9]).tolist() == [1.0, 1.0]


def test_claims_say_what_was_put_into_the_numbers(digits):
    claims = by_id(digits)
    assert claims["stablevm"]["verdict"] == "supported"
    assert claims["repa-high"]["verdict"] == "supported"
    assert all(claims[f"toy-error-cfm-{t}"]["verdict"] == "supported" for t in (0.2, 0.3, 0.4, 0.5))
    assert claims["split-moves-with-dimension"]["verdict"] == "supported"
    # The synthetic Euler sweep has StableVS equal to control, and its mixtures have no variance in the empirical set.
    assert claims["stablevs-step-euler"]["verdict"] == "check of the implementation"
    assert claims["low-variance-of-the-law"]["verdict"] == "contradicted"
    # Heun's control is 1.2 dB better than StableVS.
    assert claims["stablevs-step-heun"]["value"] == pytest.approx(-1.2)
    assert claims["stablevs-step-heun"]["verdict"] == "contradicted"


def test_every_claim_says_how_it_was_measured(digits, minimal):
    for results in (digits, minimal):
        for claim in by_id(results).values():
            assert {"id", "paper_claim", "measured", "interval", "verdict", "how", "scope"} <= set(claim)
            assert claim["verdict"] in MARKS
            assert bool(claim["reason"]) == (claim["verdict"] == "not tested at this scale")
            assert claim["detectable"] is None or claim["verdict"] == UNKNOWN
            for name in ("paper_claim", "measured", "unit", "rule", "how", "line", "scope"):
                assert claim[name]
    how = by_id(digits)["stablevm"]["how"]
    assert {"runs", "seeds", "solver", "steps", "guidance", "samples"} <= set(how)


def test_an_interval_lies_on_the_side_of_its_bound_that_the_verdict_says(digits, minimal):
    compared = [claim for results in (digits, minimal) for claim in by_id(results).values() if claim["interval"]]
    assert {claim["bound"] for claim in compared} > {0}  # of ratios it is 1
    for claim in compared:
        low, high = claim["interval"]
        if claim["verdict"] in ("supported", "contradicted"):
            assert not low <= claim["bound"] <= high, claim["id"]
        elif claim["verdict"] == UNKNOWN:
            assert low <= claim["bound"] <= high, claim["id"]


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
            table["difference"] = -table["difference"]
        table.to_csv(tmp_path / "tables" / file.name, index=False)
    make_claims(synthetic.digits(), tmp_path, tmp_path / "claims.json")
    assert by_id(digits)["stablevm"]["verdict"] == "supported"
    assert by_id(tmp_path)["stablevm"]["verdict"] == "contradicted"


def test_the_summary_is_at_most_ten_readable_lines(digits, minimal):
    lines = summary_lines(digits)
    assert len(lines) == 10
    assert all("\n" not in line and len(line) <= 150 for line in lines)
    claims = by_id(digits)
    supported = sum(claim["verdict"] == "supported" for claim in claims.values())
    assert lines[0].startswith(f"{len(claims)} claims")
    assert f"{supported} supported" in lines[0]
    assert 1 <= len(summary_lines(minimal)) <= 10
