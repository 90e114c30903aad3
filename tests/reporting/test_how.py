"""What the report says about how a number was made is what the study does."""

import json
from pathlib import Path

import pandas as pd
import pytest

from stablevelocity.reporting.describe import decoder_text, departures, sweep_text
from stablevelocity.reporting.make import make_claims
from stablevelocity.study import Study, load_study
from stablevelocity.study.experiment_settings import Toy
from stablevelocity.study.methods import alignment_text, target_text
from stablevelocity.study.settings import Arm, Autoencoder, StableVM

from . import synthetic
from .html_page import Page, page_of, read_page

HERE = "the autoencoder trained here"
VAE = {"pretrained": "stabilityai/sd-vae-ft-mse", "revision": "111"}


def with_main(**change) -> Study:
    """The synthetic study with another main sampler."""
    study = synthetic.digits()
    samplers = {**study.sampling.samplers, "ode": study.sampler("ode").model_copy(update=change)}
    return study.model_copy(update={"sampling": study.sampling.model_copy(update={"samplers": samplers})})


def claims_of(study: Study, results: Path, out: Path) -> list[dict]:
    make_claims(study, results, out)
    return json.loads(out.read_text())


def sweeps(page: Page) -> list[str]:
    """How the figures and tables of the sweep were made."""
    return [how for how in page.hows if "long run: 30 steps of the same solver" in how]


@pytest.mark.parametrize(
    "autoencoder, named",
    [
        ({}, HERE),
        (VAE, "stabilityai/sd-vae-ft-mse at 111"),
        (
            {**VAE, "decoder": "stabilityai/sd-vae-ft-ema", "decoder_revision": "222"},
            "stabilityai/sd-vae-ft-ema at 222",
        ),
    ],
)
def test_the_decoder_is_the_one_that_makes_the_images(autoencoder, named):
    study = synthetic.digits().model_copy(update={"autoencoder": Autoencoder.model_validate(autoencoder)})
    assert decoder_text(study) == named


def test_every_result_names_its_decoder(digits):
    page = read_page(digits)
    fidelity = [how for how in page.hows if "samples per run" in how]
    assert len(fidelity) > 4
    assert len(sweeps(page)) == 4
    for how in (*fidelity, *sweeps(page)):
        assert f"decoder: {HERE}" in how
    for name in ("table1", "table2", "table3"):
        assert set(pd.read_csv(digits / f"tables/{name}.csv")["decoder"]) == {HERE}
    table = pd.read_csv(digits / "tables/conditions.csv")
    rows = table[table["quantity"].str.startswith("Autoencoder")]
    assert rows["how"].str.contains(f"decoder of all samples: {HERE}").all()
    sampled = [
        c["how"]
        for c in json.loads((digits / "claims.json").read_text())
        if "guidance" in c["how"] and not c["id"].startswith("exact-flow")
    ]
    assert len(sampled) > 8
    assert {how["decoder"] for how in sampled} == {HERE}


def test_a_guided_sweep_is_not_called_unguided(tmp_path, digits):
    guided = with_main(guidance=1.8, guidance_interval=(0.0, 0.7), diffusion="2t", labels="balanced")
    shared = "guidance 1.8 for t in [0, 0.7], balanced labels"
    with_noise = f"{shared}; Euler-Maruyama: diffusion g = 2t, last step from t = 0.04"
    assert sweep_text(guided, ["euler", "euler_maruyama"]) == with_noise
    page = page_of(guided, digits, tmp_path / "guided.html")
    assert all(with_noise in how for how in sweeps(page))
    assert "Table 2. All arms, guidance 1.8 for t in [0, 0.7]" in page.tables
    assert all("no guidance, random labels" in how for how in sweeps(read_page(digits)))
    for study, said, guidance in ((guided, shared, 1.8), (synthetic.digits(), "no guidance, random labels", 1.0)):
        swept = [c["how"] for c in claims_of(study, digits, tmp_path / "claims.json") if "sampling" in c["how"]]
        assert swept
        for how in swept:
            assert how["guidance"] == guidance
            assert how["sampling"].startswith(said)
            # A claim about Euler says nothing of noise.
            assert ("Euler-Maruyama" in how["sampling"]) == (how["solver"] == "euler_maruyama")


def test_only_a_sweep_with_noise_speaks_of_its_coefficient(tmp_path, digits):
    study = synthetic.digits()
    sweep = study.sampling.sweep.model_copy(update={"solvers": ["euler"], "thinned": ["euler"]})
    study = study.model_copy(update={"sampling": study.sampling.model_copy(update={"sweep": sweep})})
    page = page_of(study, digits, tmp_path / "x.html")
    assert len(sweeps(page)) == 4
    assert all("; no guidance, random labels; long run" in how for how in sweeps(page))


def test_tables_of_the_sweep_hold_what_its_samplers_share(digits):
    for name in ("stablevs", "few_step"):
        table = pd.read_csv(digits / f"tables/{name}.csv")
        assert set(table["guidance"]) == {1.0}
        assert set(table["labels"]) == {"random"}
        noisy = table["solver"] == "euler_maruyama"
        assert set(table.loc[noisy, "diffusion"]) == {"t"}
        assert table.loc[~noisy, "diffusion"].isna().all()


def test_the_arms_are_described_with_bank_and_time_from_which_stablevm_is_used(digits):
    rows = {row[0]: row for row in read_page(digits).tables["The arms"]}
    row = rows["StableVM + VA-REPA"]
    assert row[2] == "StableVM for t ≥ 0, bank of 128 per class, null bank of 128 rows per class"
    assert row[3] == "sigmoid weight, xi = 0.7, k = 20, lambda = 0.5, mlp projector"
    assert rows["CFM"][2:4] == ["CFM", "–"]
    code = {"label": "x", "objective": "stablevm", "stablevm": {"bank": {"null_capacity": 256}}}
    assert target_text(Arm.model_validate(code)).endswith("bank of 256 per class, null bank of 256 rows")
    irepa = {"label": "x", "alignment": {"schedule": "uniform", "projector": "conv", "spatial_norm": 0.6}}
    assert alignment_text(Arm.model_validate(irepa)) == "uniform weight, lambda = 0.5, conv projector, gamma = 0.6"


def test_the_page_of_the_imagenet_study_counts_what_the_study_has():
    study = load_study("config/imagenet256.yaml")
    page = Path("docs/imagenet256.md").read_text()
    assert f"{len(study.arms)} arms, {len(study.runs())} runs" in page
    # "... but the run of 480 epochs and the ablations of the bank and of `t_min`, which have one."
    single = {"stablevm-va-repa-long", "bank-16", "bank-64", "bank-512", "stablevm-all-times"}
    for arm in study.arms:
        assert len(study.arm_training(arm).seeds) == (1 if arm in single else 3)
    rows = 1000 * StableVM().bank.capacity * 2  # classes, then as many of the null class
    assert f"{rows:,} x 16,384 bytes = {rows * 16_384 / 1e9:.1f} GB" in page


def test_the_full_protocol_of_the_toy_is_the_paper_s_in_every_setting():
    """The protocol is docs/paper.md#toy. Every setting is changed in turn, so a new one cannot be left out."""
    assert departures(Toy()) == []
    assert departures(Toy(seeds=[0, 1, 2, 3, 4, 5])) == []
    other = {
        "objectives": ["cfm"],
        "seeds": [0],
        "updates": 40_000,
        "batch": 128,
        "references": 512,
        "lr": 1e-3,
        "ema": 0.99,
        "evaluate_every": 100,
        "points": 500,
        "times": [0.5],
    }
    assert set(other) == set(Toy.model_fields)
    for name, value in other.items():
        assert len(departures(Toy.model_validate({name: value}))) == 1
    assert departures(Toy(updates=2000)) == ["updates 2,000 (full: 20,000)"]
    full = load_study("config/imagenet256.yaml").toy
    assert full is not None
    assert departures(full) == []
