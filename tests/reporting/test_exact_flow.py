"""The section on exact velocities says what was put into its numbers; its seeds are the repetitions."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stablevelocity.reporting.make import make_table
from stablevelocity.reporting.results import Results
from stablevelocity.reporting.sections.exact_flow import SECTION
from stablevelocity.study.layout import Layout

from . import synthetic

LAYOUT = Layout()
STUDY = synthetic.digits()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic exact flows: StableVS gains 2 dB at k^-1 and loses 3 dB at white; with other solvers than Euler its
    control arm is 4 dB better.
    """
    return synthetic.make(STUDY, tmp_path_factory.mktemp("flows") / "digits")


def claims(folder: Path) -> dict:
    names = [table.name for table in SECTION.tables]
    for name in names:
        make_table(STUDY, folder, name, folder / LAYOUT.table(name))
    found = SECTION.load("claims")(Results(STUDY, folder, tables=names))
    return {claim.id: claim for claim in found}


def changed(made: Path, folder: Path, change) -> dict:
    """The claims when the experiment's own table is another."""
    frame = pd.read_csv(made / LAYOUT.exact_flow)
    for name in (LAYOUT.exact_flow, LAYOUT.latent_spectrum):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    change(frame).to_csv(folder / LAYOUT.exact_flow, index=False)
    return claims(folder)


def test_each_verdict_is_that_of_a_t_test_over_seeds(made):
    found, frame = claims(made), pd.read_csv(made / LAYOUT.exact_flow)
    for exponent, expected in ((0, "contradicted"), (1, "supported")):
        rows = frame[(frame["dimension"] == 256) & (frame["exponent"] == exponent) & (frame["spread"] == 0.1)]
        rows = rows[(rows["guidance"] == 1) & (rows["solver"] == "euler") & (rows["xi"] == 0.85)]
        arms = {arm: rows[rows["arm"] == arm].sort_values("seed")["psnr_long"] for arm in ("stablevs", "base")}
        test = stats.ttest_rel(arms["stablevs"], arms["base"])
        claim = found[f"exact-flow-{exponent}-256"]
        # Tables keep six digits.
        assert claim.outcome.verdict == expected
        assert claim.value == pytest.approx(np.mean(arms["stablevs"].to_numpy() - arms["base"].to_numpy()), rel=1e-5)
        assert claim.outcome.p == pytest.approx(test.pvalue, rel=1e-4)
        assert "dB" in claim.record("")["line"]
    for solver in ("dpm", "unipc"):
        claim = found[f"exact-flow-step-{solver}"]
        assert claim.outcome.verdict == "contradicted"
        assert claim.value == pytest.approx(-4, abs=1e-6)


def test_arms_swapped_turn_the_verdict_and_seeds_given_twice_are_refused(made, tmp_path):
    swap = {"base": "stablevs", "stablevs": "base"}
    found = changed(made, tmp_path, lambda frame: frame.assign(arm=frame["arm"].replace(swap)))
    assert found["exact-flow-1-256"].outcome.verdict == "contradicted"
    with pytest.raises(ValueError, match="duplicate"):
        changed(made, tmp_path, lambda frame: pd.concat([frame, frame]))


def test_flows_without_an_effect_support_nothing_beyond_the_nominal_rate():
    """200 studies of noise; 2.5 % of each claim's may come out as supported: four binomial deviations allow 13.8."""
    rng, counts = np.random.default_rng(0), Counter()
    flow = STUDY.exact_flow
    cells = itertools.product(flow.dimensions, flow.exponents, flow.solvers, flow.seeds)
    rows = pd.DataFrame(cells, columns=["dimension", "exponent", "solver", "seed"])
    rows = rows.assign(spread=flow.spreads[0], guidance=flow.guidance[0], xi=flow.xi[0], low_steps=flow.low_steps[0])
    rows = rows.assign(calls=20, base=50.0, gain_truth=0.0, control_gain=0.0, flips_base=0.0, flips_stablevs=0.0)
    frames = {}

    class Drawn(Results):
        def table(self, name):
            return frames[name]

    for _ in range(200):
        noise = {name: rng.normal(0, 3, len(rows)) for name in ("gain", "step_gain")}
        frames["exact_flow_runs"] = rows.assign(**noise)
        found = SECTION.load("claims")(Drawn(STUDY, Path()))
        counts.update(claim.id for claim in found if claim.outcome.verdict == "supported")
    assert max(counts.values()) <= 13


def test_the_study_s_own_network_stands_in_the_figure_only_where_it_was_sampled_with_the_same_shift(made):
    product, results = SECTION.figures[0].load(), Results(STUDY, made)
    assert SECTION.load("view")(results) == {
        "latents": pytest.approx({"dimension": 256, "exponent": 1.5, "axes": 1.42}, rel=0.01),
        "own": None,
    }
    axes = product(results).axes
    assert [axis.get_title() for axis in axes] == ["spread within modes 0.1", "spread within modes 0.3"]
    assert not any("network" in label for label in axes[0].get_legend_handles_labels()[1])
    sweep = STUDY.sampling.sweep.model_copy(update={"shift": 3.0})
    study = STUDY.model_copy(update={"sampling": STUDY.sampling.model_copy(update={"sweep": sweep})})
    axes = product(Results(study, made)).axes
    assert any("network" in label for label in axes[0].get_legend_handles_labels()[1])
