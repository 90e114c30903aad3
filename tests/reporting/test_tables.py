"""Tables against direct computations from the raw files."""

import math

import numpy as np
import pandas as pd
import pytest
import yaml

from stablevelocity.errors import UserError
from stablevelocity.reporting import registry
from stablevelocity.reporting.make import make_table
from stablevelocity.reporting.paper_rows import TABLES, _table3
from stablevelocity.reporting.results import Results
from stablevelocity.reporting.sections.pretrained import tables as of_pretrained
from stablevelocity.reporting.sections.training import published
from stablevelocity.reporting.sections.training.tables import gradient_variance
from stablevelocity.reporting.sections.variance.tables import rise
from stablevelocity.reporting.templates import TEMPLATES
from stablevelocity.reporting.text_table import text_table
from stablevelocity.study import load_study, parse_study
from stablevelocity.study.methods import ablations, kind

from . import synthetic

SHOWN = yaml.safe_load((TEMPLATES / "tables.yaml").read_text())


def raw(results, arm: str, step: int, sampler: str, metric: str = "fid") -> list[float]:
    values = []
    for seed in (0, 1):
        frame = pd.read_csv(results / synthetic.LAYOUT.fidelity(f"{arm}-s{seed}", step, sampler)).set_index("metric")
        values.append(float(frame.loc[metric, "value"]))
    return values


def row_of(table: pd.DataFrame, **where) -> pd.Series:
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_table2_holds_mean_and_spread_over_seeds(digits):
    table = pd.read_csv(digits / "tables/table2.csv")
    assert set(table["sampler"]) == {"ode"}
    assert len(table) == 6 * 2
    values = raw(digits, "stablevm", 1500, "ode")
    row = row_of(table, arm="stablevm", step=1500)
    # Files are written with six significant digits.
    assert row["fid"] == pytest.approx(np.mean(values), rel=1e-5)
    assert row["fid_sd"] == pytest.approx(np.std(values, ddof=1), rel=1e-4)
    base = raw(digits, "cfm", 1500, "ode")
    assert row["fid_from_baseline"] == pytest.approx(np.mean(values) - np.mean(base), rel=1e-4)


def test_differences_find_the_effects_that_were_put_in(digits):
    table = pd.read_csv(digits / "tables/differences.csv")
    for comparison, arm, against in (("stablevm", "stablevm", "cfm"), ("repa-high", "repa-high", "repa")):
        row = row_of(table, comparison=comparison, step=1500, sampler="ode", metric="fid")
        true = synthetic.EFFECTS[arm] / synthetic.EFFECTS[against] - 1
        # Four standard errors of a ratio of two means over two seeds, spread 2 % each.
        assert row["relative"] == pytest.approx(true, abs=4 * synthetic.SPREAD)
        assert row["low"] < row["difference"] < row["high"]
        assert row["paired_low"] < row["difference"] < row["paired_high"]


def test_published_values_never_stand_in_measured_columns(digits):
    values = {
        float(value)
        for name in ("table2_model_scale_nocfg", "table3_alignment_variants", "table1_imagenet256_cfg")
        for value in pd.read_csv(synthetic.PUBLISHED / f"{name}.csv")["fid"].dropna()
    }
    for name in ("table1", "table2", "table3", "runs"):
        table = pd.read_csv(digits / f"tables/{name}.csv")
        measured = table.select_dtypes("number")
        measured = measured[[column for column in measured if "published" not in column]]
        assert not np.isin(measured.to_numpy(), list(values)).any()


VAE = {
    "pretrained": "stabilityai/sd-vae-ft-mse",
    "revision": "a",
    "decoder": "stabilityai/sd-vae-ft-ema",
    "decoder_revision": "b",
}


def imagenet(**change):
    """The paper's protocol for table 2 at 400,000 iterations."""
    sampler = {"solver": "euler_maruyama", "steps": 250, **change.pop("sampler", {})}
    arms = change.pop("arms", {})
    content = {
        "name": "imagenet256",
        "images": {"dataset": "folder", "path": str(synthetic.PUBLISHED), "size": 256},
        "training": {"model": {"name": "SiT-XL/2"}, "seeds": [0], "steps": 400_000, "milestones": [100_000]},
        "arms": {
            "repa": {"label": "REPA", "alignment": {"schedule": "uniform"}},
            "both": {"label": "StableVM + VA-REPA", "objective": "stablevm", "alignment": {}},
            **arms,
        },
        "autoencoder": VAE,
        "encoder": {"name": "dinov2-base", "path": str(synthetic.PUBLISHED)},
        "sampling": {"samplers": {"sde": sampler}, "main": "sde", "images": 50_000},
        "evaluation": {"extractor": "inception", "weights": "inception.pth", "reference": "adm.npz"},
    }
    return parse_study({**content, **change})


def test_a_row_stands_beside_the_papers_when_it_repeats_its_protocol():
    def apart(study, sampler="sde", guidance=published.PLAIN):
        return published.apart(study, "both", sampler, guidance)

    assert apart(imagenet()) == []
    # Another number of samples, solver or guidance is another quantity.
    sampling = {"samplers": {"sde": {"solver": "euler_maruyama", "steps": 250}}, "main": "sde", "images": 10_000}
    assert apart(imagenet(sampling=sampling)) == ["sampling.images 10000, not 50000"]
    assert apart(imagenet(sampler={"steps": 100})) == ["steps 100, not 250"]
    assert apart(imagenet(sampler={"guidance": 1.8})) == ["guidance 1.8, not 1.0"]
    # So are the other diffusion coefficient, last step, labels, reference, decoder, and optimiser.
    assert apart(imagenet(sampler={"diffusion": "2t"})) == ["diffusion 2t, not t"]
    assert apart(imagenet(sampler={"last_time": 0.01})) == ["last_time 0.01, not 0.04"]
    assert apart(imagenet(sampler={"labels": "balanced"})) == ["labels balanced, not random"]
    without = imagenet(evaluation={"extractor": "inception", "weights": "inception.pth"})
    assert apart(without) == ["reference: the train split, not ADM's batch"]
    decoder = apart(imagenet(autoencoder={**VAE, "decoder": None, "decoder_revision": None}))
    assert decoder == ["decoder stabilityai/sd-vae-ft-mse, not stabilityai/sd-vae-ft-ema"]
    assert apart(imagenet(arms={"both": {**BOTH, "training": {"batch": 128}}})) == ["batch 128, not 256"]


BOTH = {"label": "StableVM + VA-REPA", "objective": "stablevm", "alignment": {}}
WHOLE = {"schedule": "uniform"}
IREPA = {"projector": "conv", "spatial_norm": 0.6}


@pytest.mark.parametrize(
    "arm, row",
    [
        (BOTH, "REPA + StableVM + VA"),
        ({**BOTH, "stablevm": {"bank": {"null_capacity": 256}}}, "REPA + StableVM + VA"),  # as the authors' code has it
        ({**BOTH, "stablevm": {"bank": {"null_capacity": 64}}}, None),
        ({**BOTH, "stablevm": {"t_min": 0.0}}, None),
        ({**BOTH, "alignment": {"coefficient": 1.0}}, None),
        ({**BOTH, "alignment": WHOLE}, None),
        ({**BOTH, "objective": "cfm"}, None),
        ({**BOTH, "alignment": IREPA}, "iREPA + StableVM + VA"),
        ({**BOTH, "alignment": {**IREPA, **WHOLE}}, None),
        ({**BOTH, "alignment": {**IREPA, "schedule": "hard"}}, None),
        ({**BOTH, "alignment": {"projector": "conv"}}, None),
        ({"label": "iREPA", "alignment": {**IREPA, **WHOLE}}, "iREPA"),
        ({"label": "VA-iREPA", "alignment": IREPA}, None),
        ({**BOTH, "class_token": True}, "REG + StableVM + VA"),
        ({**BOTH, "class_token": True, "alignment": WHOLE}, None),
    ],
)
def test_a_published_value_belongs_to_the_whole_method_or_to_none_of_it(arm, row):
    """The paper gives the base method and it with both parts; one part alone is a quantity of its own."""
    study = imagenet(arms={"tested": {**arm, "label": "tested"}})
    method = kind(study.arms["tested"]).method
    named = _table3(study, {"arm": "tested", "method": method, "sampler": "sde", "step": 100_000})
    assert (named["method"] if not named["apart"] else None) == row


def test_a_published_value_belongs_to_its_own_settings():
    """The study of the paper has ablations that share a method's name."""
    study = load_study("config/imagenet256.yaml")
    for arm in ("repa", "repa-b", "stablevm-va-repa-l", "stablevm-va-repa", "stablevm-va-reg"):
        assert published.apart(study, arm, "sde", published.PLAIN) == []
    for arm in ("xi-0.6", "bank-64", "schedule-snr"):
        assert published.apart(study, arm, "sde", published.PLAIN) != []
    assert published.apart(study, "stablevm-va-repa", "sde-guided", published.GUIDED) == []
    assert published.apart(study, "stablevm-va-repa", "sde-guided", published.PLAIN) != []


def with_ablations(**more):
    """The paper's study with arms that change one thing each, and two that change more."""
    wide = {"stablevm": {"bank": {"capacity": 64}}}
    arms = {
        "xi-0.6": {**BOTH, "label": "xi = 0.6", "alignment": {"xi": 0.6}},
        "xi-0.8": {**BOTH, "label": "xi = 0.8", "alignment": {"xi": 0.8}},
        "hard": {**BOTH, "label": "hard weight", "alignment": {"schedule": "hard"}},
        "bank": {**BOTH, "label": "bank of 64", **wide},
        "two": {**BOTH, "label": "two changes", "alignment": {"xi": 0.6}, **wide},
        "lr": {**BOTH, "label": "other rate", "alignment": {"xi": 0.6}, "training": {"lr": 1e-3}},
    }
    return imagenet(arms={**arms, **more})


def test_an_ablation_is_an_arm_that_differs_in_one_setting():
    assert ablations(with_ablations()) == [
        ("alignment.xi", "xi-0.6", "both"),
        ("alignment.xi", "xi-0.8", "both"),
        ("alignment.schedule", "hard", "both"),
        ("stablevm.bank.capacity", "bank", "both"),
    ]
    assert "ablations" in registry.tables(with_ablations())
    assert "ablations" not in registry.tables(synthetic.digits())


def test_ablations_stand_beside_their_base_and_the_paper(tmp_path):
    study = with_ablations()
    study = study.model_copy(update={"training": study.training.model_copy(update={"seeds": [0, 1]})})
    results = synthetic.make(study, tmp_path)
    out = results / "tables/ablations.csv"
    make_table(study, results, "ablations", out)
    table = pd.read_csv(out)
    assert len(table) == 2 * (3 + 2 + 2)  # steps x (base and its arms, per setting)
    base = row_of(table, setting="alignment.xi", arm="both", step=400_000)
    row = row_of(table, setting="alignment.xi", arm="xi-0.8", step=400_000)
    assert (base["value"], row["value"]) == ("0.7", "0.8")
    ours, theirs = raw(results, "xi-0.8", 400_000, "sde"), raw(results, "both", 400_000, "sde")
    assert row["fid_from_base"] == pytest.approx(np.mean(ours) - np.mean(theirs), abs=1e-5)
    assert math.isnan(base["fid_from_base"])
    first = row_of(table, setting="alignment.xi", arm="xi-0.6", step=100_000)
    make_table(study, results, "runs", results / "tables/runs.csv")
    theirs = TABLES["ablations"].make(Results(study, results, tables=registry.tables(study)), "ablations")
    theirs = theirs[theirs["setting"] == "xi"].astype({"value": float}).set_index(["setting", "value", "iterations"])
    assert theirs.loc[("xi", 0.6, 100_000), "published_fid"] == 17.38
    assert theirs.loc[("xi", 0.6, 100_000), "fid"] == pytest.approx(first["fid"])
    assert theirs.loc[("xi", 0.7, 400_000), "fid"] == pytest.approx(base["fid"])
    assert math.isnan(theirs.loc[("xi", 0.8, 400_000), "published_fid"])


def test_published_changes_are_those_of_the_paper(tmp_path):
    results = Results(synthetic.digits(), tmp_path, synthetic.PUBLISHED)
    paper = published.pair(results, "repa-stable")
    assert paper is not None
    assert (paper.arm, paper.against) == (17.12, 18.59)
    assert paper.relative == pytest.approx(17.12 / 18.59 - 1)
    assert published.pair(results, "stablevm") is None


def test_rise_interpolates_where_the_scaled_curve_passes_a_tenth():
    curve = pd.DataFrame({"t": [0.1, 0.2, 0.3], "mean": [0.0, 0.0, 4.0], "dimension": 100})
    # V/sqrt(d) goes from 0 to 0.4 between 0.2 and 0.3: a quarter of the way.
    assert rise(curve) == pytest.approx(0.225)
    assert math.isnan(rise(curve.assign(mean=9.0)))


def test_stablevs_splits_its_effect_into_step_and_grid(digits):
    table = pd.read_csv(digits / "tables/stablevs.csv")
    sweep = pd.read_csv(digits / "metrics/sweep/cfm-s0.csv")
    row = row_of(table, run="cfm-s0", solver="heun", xi=0.7, low_steps=6)
    thinned = sweep[(sweep["solver"] == "heun") & (sweep["xi"] == 0.7) & (sweep["low_steps"] == 6)].set_index(
        "low_regime"
    )
    assert (row["nfe"], row["nfe_control"]) == (thinned.loc["stablevs", "nfe"], thinned.loc["control", "nfe"])
    assert row["nfe_control"] > row["nfe"]
    assert row["psnr_step"] == pytest.approx(thinned.loc["stablevs", "psnr"] - thinned.loc["control", "psnr"], abs=1e-3)
    base = sweep[(sweep["solver"] == "heun") & (sweep["low_regime"] == "none") & np.isfinite(sweep["psnr"])]
    expected = np.interp(row["nfe"], base["nfe"], base["psnr"])
    assert row["psnr_base"] == pytest.approx(expected, rel=1e-5)
    assert row["psnr_stablevs"] == pytest.approx(row["psnr_base"] + row["psnr_grid"] + row["psnr_step"], rel=1e-4)


def test_the_base_solver_is_never_extrapolated(digits):
    table = pd.read_csv(digits / "tables/stablevs.csv")
    sweep = pd.read_csv(digits / "metrics/sweep/cfm-s0.csv")
    known = sweep[(sweep["solver"] == "euler") & (sweep["low_regime"] == "none") & np.isfinite(sweep["psnr"])]["nfe"]
    euler = table[(table["run"] == "cfm-s0") & (table["solver"] == "euler")]
    outside = (euler["nfe"] < known.min()) | (euler["nfe"] > known.max())
    assert outside.any()
    assert euler["psnr_base"].isna().equals(outside)


def test_metrics_of_real_images_say_which_images_they_are_of(digits):
    how = pd.read_csv(digits / "tables/conditions.csv").set_index("quantity")["how"]
    assert how["Real against real: FID"] == "360 real held-out images against train split, features digits"
    halves = "718 images of the reference against the other 718, features digits; ten splits"
    assert how["Real against real: FID of halves"] == halves


def test_unknown_and_missing_things_end_in_one_line(tmp_path, digits):
    study = synthetic.digits()
    with pytest.raises(UserError, match="table 'table9': study digits has"):
        make_table(study, digits, "table9", tmp_path / "x.csv")
    with pytest.raises(UserError, match=r"variance/\w+\.csv: no such file"):
        make_table(study, tmp_path, "variance", tmp_path / "x.csv")


def test_a_table_is_shown_with_the_columns_that_it_has_and_unknown_values_as_dashes(digits):
    table = pd.read_csv(digits / "tables/table2.csv")
    shown = text_table("table2", table, "no guidance")
    assert shown.title == "Table 2. All arms, no guidance"
    # sFID was not computed, and nothing of this study stands beside the paper's table.
    assert shown.columns[:5] == ["Arm", "Runs", "Steps", "FID", "95 %"]
    assert "sFID" not in shown.columns
    assert not shown.published
    assert shown.words == 2
    first = shown.rows[0]
    assert first[:3] == ["CFM", "cfm-s0, s1", "500"]
    assert first[shown.columns.index("FID – baseline")] == "–"
    assert len(shown.rows) == len(table)


def test_every_column_that_is_shown_is_one_of_its_table(digits):
    """A misspelt column would be left out in silence; those of metrics that only other studies compute are known."""
    elsewhere = {"sfid", "lpips"}
    for name in registry.tables(synthetic.digits()):
        table = pd.read_csv(digits / f"tables/{name}.csv")
        if name in ("runs", "few_step", "differences") or name not in SHOWN:
            continue
        named = {source for _, sources, *_ in SHOWN[name]["columns"] for source in sources.split()}
        assert named - set(table) <= elsewhere, name


def test_published_read_offs_are_shown_whole_and_marked():
    frame = pd.read_csv(synthetic.PUBLISHED / "figure1_variance_regimes.csv")
    shown = text_table("published_figure1", frame)
    assert shown.is_published
    assert [len(shown.rows), len(shown.columns)] == [len(frame), 4]
    assert ["GMM", "100", "0.305", "5.68"] in shown.rows


def test_the_ratio_of_gradient_variances_is_paired_by_batch(tmp_path):
    """Batches that differ a lot, with exactly half of the variance in each: no uncertainty is left in the ratio."""
    content = synthetic.minimal().model_dump(mode="json") | {
        "gradient_variance": {"arms": ["cfm"], "stablevm": {"bank": {"capacity": 256}}}
    }
    study = parse_study(content)
    rows = [(7, "cfm", k, 10.0 + k, 2.0 * k) for k in range(1, 6)] + [(7, "stablevm", k, 0.0, k) for k in range(1, 6)]
    file = tmp_path / synthetic.LAYOUT.gradient_variance(study.gradient_runs()[0])
    file.parent.mkdir(parents=True)
    columns = ["step", "objective", "batch", "squared_norm", "squared_deviation"]
    pd.DataFrame(rows, columns=columns).to_csv(file, index=False)
    row = row_of(gradient_variance(Results(study, tmp_path)), step=7)
    assert (row["variance_cfm"], row["variance_stablevm"], row["mean_square_cfm"]) == (6, 3, 7)  # 13 - 6
    assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == pytest.approx((0.5, 0.5, 0.5))


def test_table5_holds_the_arms_of_videos_and_not_the_sweep_of_xi(tmp_path):
    tiny = {"tiny": {"steps": 5}, "images": 1}
    study = parse_study({"name": "p", "toy": None, "pretrained": {"families": {"sd35": tiny, "wan22": tiny}}})
    arms = ["euler-base", "euler-stablevs", "euler-stablevs-xi0.5", "euler-control", "euler-control-xi0.5"]
    for family in ("sd35", "wan22"):
        file = tmp_path / synthetic.LAYOUT.family_metrics(family)
        file.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"arm": arms, "psnr": np.arange(5.0)}).to_csv(file, index=False)
    table = of_pretrained.table5(Results(study, tmp_path))
    assert set(table["family"]) == {"wan22"}
    assert table["arm"].tolist() == ["euler-base", "euler-stablevs", "euler-control"]
    assert table["psnr"].tolist() == [0, 1, 3]
    assert table["xi"].isna().tolist() == [True, False, False]
