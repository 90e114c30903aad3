"""What the report says about how a number was made is what the study does."""

from pathlib import Path

import pandas as pd
import pytest

from stablevelocity.reporting.blocks import Block, Prose
from stablevelocity.reporting.claims import Tables
from stablevelocity.reporting.describe import decoder_text, sweep_text
from stablevelocity.reporting.page import Context
from stablevelocity.reporting.sections.sampling.claims import claims as sampling_claims
from stablevelocity.reporting.sections.sampling.text import text as sampling
from stablevelocity.reporting.sections.toy.protocol import departures
from stablevelocity.reporting.sections.training.claims import claims as training_claims
from stablevelocity.reporting.sections.training.text import text as training
from stablevelocity.reporting.source import Source
from stablevelocity.study import Study, load_study
from stablevelocity.study.methods import alignment_text, target_text
from stablevelocity.study.settings import Arm, Autoencoder, StableVM, Toy

from . import synthetic

HERE = "the autoencoder trained here"
VAE = {"pretrained": "stabilityai/sd-vae-ft-mse", "revision": "111"}


def with_main(**change) -> Study:
    """The synthetic study with another main sampler."""
    study = synthetic.digits()
    samplers = {**study.sampling.samplers, "ode": study.sampler("ode").model_copy(update=change)}
    return study.model_copy(update={"sampling": study.sampling.model_copy(update={"samplers": samplers})})


def hows(blocks: list[Block]) -> list[str]:
    return [block.how for block in blocks if not isinstance(block, Prose)]


def context(study: Study, results) -> Context:
    return Context(study, Source(study, results, synthetic.PUBLISHED))


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
    study = synthetic.digits()
    fidelity = [how for how in hows(training(context(study, digits))) if "samples per run" in how]
    assert len(fidelity) > 4
    for how in (*fidelity, *(how for how in hows(sampling(context(study, digits))) if how.startswith("Runs "))):
        assert f"decoder: {HERE}" in how
    for name in ("table1", "table2", "table3"):
        assert set(pd.read_csv(digits / f"tables/{name}.csv")["decoder"]) == {HERE}
    found = pd.read_csv(digits / "tables/conditions.csv")
    rows = found[found["quantity"].str.startswith("Autoencoder")]
    assert rows["how"].str.contains(f"decoder of all samples: {HERE}").all()
    tables = Tables(study, digits)
    judged = [claim for claim in training_claims(tables) if "sampler" in claim.how]
    for claim in (*judged, *sampling_claims(tables)):
        assert claim.how["decoder"] == HERE


def test_a_guided_sweep_is_not_called_unguided(digits):
    guided = with_main(guidance=1.8, guidance_interval=(0.0, 0.7), diffusion="2t", labels="balanced")
    shared = "guidance 1.8 for t in [0, 0.7], balanced labels"
    with_noise = f"{shared}; Euler-Maruyama: diffusion g = 2t, last step from t = 0.04"
    assert sweep_text(guided, ["euler", "euler_maruyama"]) == with_noise
    measured = [how for how in hows(sampling(context(guided, digits))) if how.startswith("Runs ")]
    assert all(with_noise in how for how in measured)
    for study, said, guidance in ((guided, shared, 1.8), (synthetic.digits(), "no guidance, random labels", 1.0)):
        measured = [how for how in hows(sampling(context(study, digits))) if how.startswith("Runs ")]
        assert len(measured) == 4
        assert all(said in how for how in measured)
        found = sampling_claims(Tables(study, digits))
        assert found
        for claim in found:
            assert claim.how["guidance"] == guidance
            assert claim.how["sampling"].startswith(said)
            # A claim about Euler says nothing of noise.
            assert ("Euler-Maruyama" in claim.how["sampling"]) == (claim.how["solver"] == "euler_maruyama")
    titles = [block.title for block in training(context(guided, digits)) if hasattr(block, "title")]
    assert "Table 2. All arms, guidance 1.8 for t in [0, 0.7], measured" in titles


def test_only_a_sweep_with_noise_speaks_of_its_coefficient(digits):
    study = synthetic.digits()
    sweep = study.sampling.sweep.model_copy(update={"solvers": ["euler"], "thinned": ["euler"]})
    study = study.model_copy(update={"sampling": study.sampling.model_copy(update={"sweep": sweep})})
    measured = [how for how in hows(sampling(context(study, digits))) if how.startswith("Runs ")]
    assert measured
    assert all("; no guidance, random labels; long run" in how for how in measured)


def test_tables_of_the_sweep_hold_what_its_samplers_share(digits):
    for name in ("stablevs", "few_step"):
        table = pd.read_csv(digits / f"tables/{name}.csv")
        assert set(table["guidance"]) == {1.0}
        assert set(table["labels"]) == {"random"}
        noisy = table["solver"] == "euler_maruyama"
        assert set(table.loc[noisy, "diffusion"]) == {"t"}
        assert table.loc[~noisy, "diffusion"].isna().all()


def test_the_arms_are_described_with_bank_and_time_from_which_stablevm_is_used(digits):
    blocks = training(context(synthetic.digits(), digits))
    arms = next(block for block in blocks if getattr(block, "title", "") == "The arms")
    row = next(row for row in arms.rows if row[0] == "StableVM + VA-REPA")
    assert row[2] == "StableVM for t >= 0, bank of 128 per class, null bank of 128 rows per class"
    assert row[3] == "sigmoid weight, xi = 0.7, k = 20, lambda = 0.5, mlp projector"
    assert arms.rows[0][2:4] == ["CFM", "–"]
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
