"""Each table and figure is one short function of the results, and shows made-up data as they are."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from stablevelocity.errors import UserError
from stablevelocity.files import write_json
from stablevelocity.reporting import registry
from stablevelocity.reporting.figures import styled
from stablevelocity.reporting.results import Results
from stablevelocity.study import load_study, parse_study

from . import synthetic

PACKAGE = Path(registry.__file__).parent
STUDY = synthetic.digits()
LONGEST = 60
"""Lines of a function: what is read at one sight."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What the stages of a synthetic study wrote, no table and no figure of it. Read only."""
    return Results(STUDY, synthetic.make(STUDY, tmp_path_factory.mktemp("raw") / "digits"))


def table(results: Results, name: str) -> pd.DataFrame:
    return registry.tables(results.study)[name].load()(results)


def drawn(results: Results, name: str) -> list[Axes]:
    with styled():
        figure: Figure = registry.figures(results.study)[name].load()(results)
    return figure.axes


def lines(axis: Axes) -> dict[str, np.ndarray]:
    """(n, 2) points of each line that has a label."""
    return {
        str(line.get_label()): line.get_xydata() for line in axis.lines if not str(line.get_label()).startswith("_")
    }


def title(axis: Axes) -> str:
    return axis.get_title(loc="left")


def test_every_function_is_shorter_than_sixty_lines_and_every_product_takes_results_alone():
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < LONGEST, f"{file.name}: {node.name}"
    for section in registry.SECTIONS:
        for product in (*section.tables, *section.figures):
            function = product.load()
            code = function.__code__
            assert code.co_varnames[: code.co_argcount] == ("results",), product.name


def test_every_table_and_figure_is_named_by_a_test():
    """Of made-up data: `table("...")` or `drawn("...")` here, or the function or its file in the tests beside."""
    text = "".join(file.read_text() for file in Path(__file__).parent.glob("*.py"))
    text += "".join(file.read_text() for file in (Path(__file__).parents[1] / "pretrained").glob("*.py"))
    for section in registry.SECTIONS:
        for kind, products in (("tables", section.tables), ("figures", section.figures)):
            for product in products:
                ways = [f"{kind}/{product.name}.", f'"{product.name}.', f'"{product.name}"', f"{product.name}("]
                assert any(way in text for way in ways), f"{kind}: {product.name}"


@pytest.mark.parametrize("name", ["table2", "runs", "differences"])
def test_a_run_whose_metrics_are_deleted_is_said_to_be_missing(results, tmp_path, name):
    """Never left out in silence; in the paper's tables a row without a run is "not run" (test_paper.py)."""
    with pytest.raises(UserError, match=r"metrics/fidelity/cfm-s0/step-00000500/ode\.csv: no such file"):
        table(Results(STUDY, tmp_path), name)


def test_one_seed_has_a_mean_and_no_spread(tmp_path):
    study = synthetic.digits([4])
    alone = Results(study, synthetic.make(study, tmp_path))
    rows = table(alone, "table2")
    assert rows["fid"].notna().all()
    assert rows[["fid_sd", "fid_low", "fid_high"]].isna().all(axis=None)
    changes = table(alone, "differences")
    assert changes["difference"].notna().all()
    assert changes[["standard_error", "low", "high", "paired_low", "paired_high"]].isna().all(axis=None)
    axis = drawn(alone, "training_fidelity")[0]
    assert not [line for line in axis.lines if line.get_linestyle() == "-"]  # no interval


def test_table1_has_the_guided_sampler_and_table3_groups_by_base(results):
    first = table(results, "table1")
    assert set(first["sampler"]) == {"sde-guided"}
    assert list(dict.fromkeys(first["arm"])) == ["cfm", "stablevm", "stablevm-va"]  # the study's order
    third = table(results, "table3")
    assert third["arm"].tolist() == ["cfm", "stablevm", "repa", "repa-low", "repa-high", "stablevm-va"]
    assert third["base"].tolist() == ["SiT"] * 2 + ["REPA"] * 4
    assert set(third["step"]) == {1500}
    fid = third.set_index("arm")["fid"]
    expected = [
        np.nan,
        fid["stablevm"] - fid["cfm"],
        np.nan,
        *(fid[["repa-low", "repa-high", "stablevm-va"]] - fid["repa"]),
    ]
    assert third["fid_from_base"].to_numpy() == pytest.approx(np.array(expected), nan_ok=True)


def test_runs_are_the_metrics_as_they_were_measured(results):
    rows = table(results, "runs")
    assert len(rows) == 8 * len(STUDY.sample_sets())
    one = rows.query("run == 'repa-s1' and step == 1500 and metric == 'fid'").iloc[0]
    raw = results.csv(synthetic.LAYOUT.fidelity("repa-s1", 1500, "ode")).set_index("metric").loc["fid"]
    assert (one["value"], one["low"], one["high"]) == (raw["value"], raw["low"], raw["high"])


def test_alignment_is_that_of_the_last_step_of_each_aligned_run(results):
    rows = table(results, "alignment")
    assert set(rows["arm"]) == {"repa", "repa-low", "repa-high", "stablevm-va"}
    raw = results.csv(synthetic.LAYOUT.alignment_curve("repa-s1"))
    assert rows.loc[rows["run"] == "repa-s1", "mean"].tolist() == raw["mean"].tolist()


def test_references_have_a_column_for_each_number_and_the_exact_one(results):
    rows, raw = table(results, "references"), results.csv(synthetic.LAYOUT.variance_references)
    counts = [f"references_{count}" for count in STUDY.variance.reference_counts]
    assert [column for column in rows if column not in ("source", "dimension", "t")] == [*counts, "exact"]
    last = raw[raw["references"] == STUDY.variance.reference_counts[-1]].sort_values("t")
    assert rows.sort_values("t")[counts[-1]].tolist() == pytest.approx(last["mean"].tolist())


def test_the_toys_tables_are_means_over_seeds_at_the_last_update(results):
    raw = results.csv("toy/error.csv")
    last = raw[(raw["update"] == raw["update"].max()) & (raw["t"] == 0.4)].pivot(
        index="objective", columns="seed", values="error"
    )
    row = table(results, "toy_error").query("objective == 'stablevm' and t == 0.4").iloc[0]
    test = stats.ttest_rel(last.loc["stablevm"], last.loc["cfm"])
    low, high = test.confidence_interval()
    assert row["error"] == pytest.approx(last.loc["stablevm"].mean())
    assert row["change_from_cfm"] == pytest.approx((last.loc["stablevm"] - last.loc["cfm"]).mean())
    assert (row["change_from_cfm_low"], row["change_from_cfm_high"]) == pytest.approx((low, high))
    variance, target = table(results, "toy_variance"), results.csv("toy/target_variance.csv")
    means = target.groupby(["t", "objective"])["variance"].mean().unstack()
    ratios = variance[variance["objective"] == "stablevm"].set_index("t")["target_variance_ratio"]
    assert ratios.to_numpy() == pytest.approx((means["stablevm"] / means["cfm"]).to_numpy())
    # What the claims read: CFM's value beside each, for the target of the very same samples.
    runs = table(results, "toy_runs").query("measure == 'target' and objective == 'stablevm'")
    own = target[target["objective"] == "stablevm"]
    assert runs["cfm"].tolist() == pytest.approx((own["variance"] + own["removed"]).tolist())
    assert table(results, "toy_cost").equals(results.csv("toy/cost.csv"))


def test_the_sweep_by_image_is_paired_and_few_step_keeps_two_values_of_xi(results):
    image = table(results, "stablevs_images")
    raw = pd.concat([results.csv(synthetic.LAYOUT.sweep_images(run)) for run in STUDY.sweep_runs()])
    one = raw.query("solver == 'heun' and xi == 0.7 and low_steps == 6 and image == 3")
    arms = one.pivot(index="run", columns="low_regime", values="psnr")
    shown = image.query("solver == 'heun' and xi == 0.7 and low_steps == 6 and image == 3").iloc[0]
    assert shown["psnr_over_control"] == pytest.approx((arms["stablevs"] - arms["control"]).mean())
    few = table(results, "few_step")
    assert few["xi"].dropna().nunique() == 2
    assert 0.85 in set(few["xi"])
    base = few[few["low_regime"] == "none"]
    assert len(base) == 2 * 3 * len({*STUDY.sampling.sweep.steps, STUDY.sampling.sweep.base_steps})


def test_figure_1_draws_each_curve_over_the_root_of_its_dimension(results):
    mixtures, data, splits = drawn(results, "figure1")
    assert (title(mixtures), title(data)) == ("Gaussian mixtures", "The data of this study")
    raw = results.csv(synthetic.LAYOUT.variance_curves).query("source == 'gmm-100' and law == 'empirical'")
    points = lines(mixtures)["mixture, d = 100"]
    assert points[:, 1] == pytest.approx(raw["mean"].to_numpy() / 10)
    rows = table(results, "variance").query("law == 'empirical'")
    assert [text.get_text() for text in splits.get_yticklabels()][-1] == "latents\nd = 256"
    markers = [line.get_xdata()[0] for line in splits.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    assert markers == pytest.approx(rows["split_point"].tolist())
    left, right = drawn(results, "figure1_references")
    exact = results.csv(synthetic.LAYOUT.variance_references).query("law == 'exact'")
    assert lines(left)["exact"][:, 1] == pytest.approx(exact["mean"].to_numpy() / 10)
    wide = table(results, "references")
    share = (wide["references_1000"] / wide["exact"]).to_numpy()
    assert lines(right)["M = 1,000"][:, 1] == pytest.approx(share)


def test_the_toys_variance_is_the_mean_over_seeds_with_their_range(results):
    target, _ = drawn(results, "toy_variance")
    raw = results.csv("toy/target_variance.csv").query("objective == 'stf'").groupby("t")["variance"]
    assert lines(target)["STF"][:, 1] == pytest.approx(raw.mean().to_numpy())
    highest = max(part.vertices[:, 1].max() for part in target.collections[1].get_paths())
    assert highest == pytest.approx(raw.max().max())


def test_fid_by_arm_shows_each_seed_and_the_mean_and_the_way_there(results):
    axis, steps = drawn(results, "training_fidelity")
    labels = [arm.label.replace(">=", "≥") for arm in STUDY.arms.values()]
    assert [text.get_text() for text in axis.get_yticklabels()] == labels
    rows = table(results, "table2").query("step == 1500")
    filled = [
        line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 1 and line.get_linestyle() == "None"
    ]
    assert filled[: len(rows)] == pytest.approx(rows["fid"].tolist())
    assert lines(steps)["CFM"][:, 1] == pytest.approx(table(results, "table2").query("arm == 'cfm'")["fid"].tolist())


def test_training_curves_are_running_means_of_five_rows(results):
    low, high, alignment = drawn(results, "training_curves")
    assert [title(axis) for axis in (low, high, alignment)][2] == "Alignment loss, t < xi"
    assert len(low.lines) == len(STUDY.runs())
    assert len(alignment.lines) == 2 * 4  # arms without alignment have no such loss
    raw = results.csv(synthetic.LAYOUT.training_metrics("cfm-s0"))
    shown = dict(low.lines[0].get_xydata())
    assert shown[raw["step"][10]] == pytest.approx(raw["velocity_low"][6:11].mean())


def test_the_sweep_is_drawn_as_means_over_runs_and_few_step_by_run(results):
    axes = drawn(results, "stablevs")
    rows = table(results, "stablevs").query("solver == 'euler'")
    first = rows[rows["low_steps"] == rows["low_steps"].min()].groupby("xi")["psnr_stablevs"].mean()
    assert lines(axes[0])["Euler + StableVS"] == pytest.approx(first.reset_index().to_numpy())
    lows = rows["low_steps"].nunique()
    assert title(axes[lows]).startswith("PUBLISHED VALUES")
    panels = drawn(results, "few_step")
    assert [title(axis) for axis in panels] == ["CFM", "StableVM + VA-REPA"]
    base = table(results, "few_step").query("run == 'cfm-s0' and solver == 'euler' and low_regime == 'none'")
    assert panels[0].lines[0].get_xydata() == pytest.approx(base.sort_values("nfe")[["nfe", "fid"]].to_numpy())


def test_exact_flows_have_a_panel_for_each_spread_and_a_line_for_each_spectrum(results):
    flow, axes = STUDY.exact_flow, drawn(results, "exact_flow")
    assert [title(axis) for axis in axes] == ["spread within modes 0.1", "spread within modes 0.3"]
    rows = table(results, "exact_flow").query(f"spread == 0.1 and guidance == {flow.guidance[0]} and exponent == 1")
    shown = lines(axes[0])["spectrum $k^{-1}$"]
    assert shown == pytest.approx(rows[["dimension", "gain"]].to_numpy())
    # The synthetic gains: 2 dB at k^-1, -3 dB at a white spectrum.
    assert shown[:, 1] == pytest.approx([2, 2], abs=0.5)
    assert lines(axes[0])["white"][:, 1] == pytest.approx([-3, -3], abs=0.5)


def test_other_settings_of_exact_flows_are_those_of_the_first_spread_without_guidance(results):
    flow, rows = STUDY.exact_flow, table(results, "exact_flow_settings")
    assert len(rows) == 2 * 2 * (len(flow.solvers) + len(flow.xi) - 1)  # dimensions x exponents x settings
    others = rows[rows["solver"] != flow.solvers[0]]
    # The synthetic control arm of other solvers gains 4 dB more than StableVS.
    assert others["step_gain"].to_numpy() == pytest.approx(-4)


def test_tables_4_and_5_are_the_arms_of_their_families_without_the_sweep(tmp_path):
    study = load_study("config/pretrained-tiny.yaml")
    for family, solver in (("sd35", "euler"), ("flux", "euler"), ("qwen-image", "euler"), ("wan22", "unipc")):
        arms = ["long", "short", "stablevs", "stablevs-xi0.7"]
        rows = [{"arm": f"{solver}-{arm}", "steps": 20, "psnr": 30.0 + place} for place, arm in enumerate(arms)]
        file = tmp_path / synthetic.LAYOUT.family_metrics(family)
        file.parent.mkdir(parents=True)
        pd.DataFrame(rows).to_csv(file, index=False)
    fourth, fifth = (table(Results(study, tmp_path), name) for name in ("table4", "table5"))
    assert list(dict.fromkeys(fourth["family"])) == ["sd35", "flux", "qwen-image"]
    assert fifth[["family", "solver", "kind"]].to_numpy().tolist() == [
        ["wan22", "unipc", kind] for kind in ("long", "short", "stablevs")
    ]
    assert fifth["psnr"].tolist() == [30, 31, 32]
    # xi is that of the study, in arms that have one.
    assert fifth["xi"].tolist() == pytest.approx([np.nan, np.nan, study.pretrained.xi], nan_ok=True)


def test_tiny_models_and_the_detector_are_told_as_they_were_measured(tmp_path):
    study = load_study("config/pretrained-tiny.yaml")
    for place, family in enumerate(study.pretrained.tiny):
        facts = {"parameters": {"transformer": 10 + place, "autoencoder": 5}, "autoencoder_psnr": 24.5, "loss": 0.3}
        write_json(tmp_path / synthetic.LAYOUT.tiny_model(family), facts)
    write_json(tmp_path / synthetic.LAYOUT.detector_accuracy, {"seen": 0.99, "unseen": 0.9})
    models = table(Results(study, tmp_path), "tiny_models")
    assert models["transformer_parameters"].tolist() == [10, 11, 12, 13]
    assert set(models["autoencoder_psnr"]) == {24.5}
    assert table(Results(study, tmp_path), "pretrained_judge").to_numpy().tolist() == [["seen", 0.99], ["unseen", 0.9]]


def test_the_variance_of_gradients_is_drawn_with_its_interval(tmp_path):
    content = synthetic.minimal().model_dump(mode="json")
    content["gradient_variance"] = {"arms": ["cfm"], "stablevm": {"bank": {"capacity": 256}}}
    study = parse_study(content)
    rng, rows = np.random.default_rng(0), []
    for step in (10, 20):
        for batch, own in enumerate(rng.uniform(5, 7, 8)):
            rows.append((step, "cfm", batch, 9.0 + own, own))
            rows.append((step, "stablevm", batch, 9.0, own / step * rng.uniform(0.9, 1.1)))
    file = tmp_path / synthetic.LAYOUT.gradient_variance(study.gradient_runs()[0])
    file.parent.mkdir(parents=True)
    pd.DataFrame(rows, columns=["step", "objective", "batch", "squared_norm", "squared_deviation"]).to_csv(
        file, index=False
    )
    results = Results(study, tmp_path)
    left, right = drawn(results, "gradient_variance")
    found = table(results, "gradient_variance")
    assert lines(left)["CFM"][:, 1] == pytest.approx(found["variance_cfm"].tolist())
    assert right.lines[0].get_ydata() == pytest.approx([0.1, 0.05], rel=0.1)
    corners = right.collections[0].get_paths()[0].vertices
    assert {corner for corner in corners[:, 1]} == {*found["ratio_low"], *found["ratio_high"]}
