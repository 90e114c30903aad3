"""A sweep runs every sampler from the same noise, StableVS beside its control arm, and goes on where it stopped."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import AutoencoderKL

from stablevelocity.data.shards import read_shard
from stablevelocity.evaluation import sweep as sweep_module
from stablevelocity.evaluation.extractors import FeatureBatch
from stablevelocity.evaluation.fidelity import frechet_distance, gaussian_statistics, precision_recall
from stablevelocity.evaluation.intervals import bootstrap_frechet
from stablevelocity.evaluation.score import ReferenceStatistics
from stablevelocity.evaluation.sweep import sweep_samplers, sweep_table
from stablevelocity.models.sit import SiT
from stablevelocity.sampling.generate import BlockSampler, generate_shard
from stablevelocity.sampling.run_sampler import network_calls
from stablevelocity.study.settings import Evaluation, Sampler, Sweep

SWEEP = Sweep(
    solvers=["euler", "heun", "euler_maruyama"],
    thinned=["euler", "heun", "euler_maruyama"],
    steps=[4, 8],
    base_steps=12,
    xi=[0.5, 0.95],
    low_steps=[3],
    images=24,
)
EVALUATION = Evaluation(neighbours=5, bootstrap=20, seed=3)
TEMPLATE = Sampler(guidance=1.5, diffusion="2t", labels="balanced")


class Colours:
    """Mean colours of the four quarters."""

    name = identity = "colours"

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: torch.Tensor) -> FeatureBatch:
        self.seen += len(images)
        pool = torch.nn.functional.avg_pool2d(images.permute(0, 3, 1, 2).float(), 4).flatten(1)[:, :6]
        return FeatureBatch(pool, pool, pool / 100)


@pytest.fixture(scope="module")
def blocks() -> BlockSampler:
    torch.manual_seed(0)
    model = SiT(input_size=4, depth=1, width=16, heads=2, patch_size=2, num_classes=5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    autoencoder = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )
    return BlockSampler(model.eval(), autoencoder.eval(), 1.0, TEMPLATE, block=8)


@pytest.fixture(scope="module")
def reference() -> ReferenceStatistics:
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * 20 + 128
    statistics = gaussian_statistics([rows])
    return ReferenceStatistics(statistics, statistics, rows, "colours", "50 rows")


@pytest.fixture(scope="module")
def tables(blocks, reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    tables = sweep_table(blocks, Colours(), reference, SWEEP, EVALUATION, folder)
    assert list(folder.glob("*.json"))
    return tables


@pytest.fixture(scope="module")
def table(tables):
    return tables[0]


def test_similarity_is_kept_image_by_image_and_the_table_has_its_means(tables):
    table, images = tables
    key = ["solver", "low_regime", "steps", "nfe", "xi", "low_steps"]
    similar = table[table["psnr"].notna()].set_index(key)[["psnr", "ssim", "feature_distance"]]
    means = images.groupby(key, dropna=False, sort=False)[list(similar)].mean()
    pd.testing.assert_frame_equal(means, similar, rtol=1e-12)
    assert (images.groupby(key, dropna=False)["image"].apply(list).map(lambda one: one == list(range(24)))).all()


def test_every_sampler_keeps_the_settings_of_the_template():
    samplers = list(sweep_samplers(SWEEP, TEMPLATE))
    assert len(samplers) == 3 * (3 + 2 * 2)
    assert len({sampler.model_dump_json() for sampler in samplers}) == len(samplers)
    for sampler in samplers:
        assert (sampler.guidance, sampler.diffusion, sampler.labels) == (1.5, "2t", "balanced")
    thinned = [sampler for sampler in samplers if sampler.low_regime != "none"]
    assert all(sampler.steps == 12 for sampler in thinned)
    assert {(sampler.xi, sampler.low_steps) for sampler in thinned} == {(0.5, 3), (0.95, 3)}


def test_grids_that_thinning_leaves_whole_are_left_out():
    many = SWEEP.model_copy(update={"low_steps": [11, 12], "xi": [0.95]})
    thinned = [sampler for sampler in sweep_samplers(many, TEMPLATE) if sampler.low_regime != "none"]
    assert thinned == []  # 11 of the 12 times lie below 0.95 and are positive: nothing to thin


def test_stablevs_stands_beside_its_control_arm_at_the_same_calls(table):
    thinned = table[table["low_regime"] != "none"]
    for (solver, xi), pair in thinned.groupby(["solver", "xi"]):
        assert sorted(pair["low_regime"]) == ["control", "stablevs"]
        if solver == "euler":  # the same step on the linear path, so the same images
            assert pair["fid"].nunique() == 1
            assert pair["nfe"].nunique() == 1
        shared = pair.loc[pair["low_regime"] == "control", "drawn_as"].item() == "stablevs"
        assert shared == (solver == "euler")
        if solver == "euler_maruyama" and xi == 0.5:  # drift without noise is another sampler
            assert pair["fid"].nunique() == 2
    plain = table[table["low_regime"] == "none"]
    assert plain["xi"].isna().all()
    assert plain[plain["solver"] == "heun"]["nfe"].tolist() == [7, 15, 23]


def test_the_control_arm_that_is_not_drawn_would_give_the_same_images(blocks):
    arms = [one for one in sweep_samplers(SWEEP, TEMPLATE) if one.solver == "euler" and one.low_regime != "none"]
    assert [arm.low_regime for arm in arms] == ["stablevs", "control"] * 2
    made = [replace(blocks, sampler=arm).latents(0)[0] for arm in arms]
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[2], made[3])


def test_rows_say_what_every_sampler_took_from_the_template(table):
    assert set(table["guidance"]) == {1.5}
    assert set(zip(table["guidance_low"], table["guidance_high"], strict=True)) == {(0.0, 1.0)}
    assert set(table["labels"]) == {"balanced"}
    stochastic = table["solver"] == "euler_maruyama"
    assert set(table.loc[stochastic, "diffusion"]) == {"2t"}
    assert set(table.loc[stochastic, "last_time"]) == {0.04}
    assert table.loc[~stochastic, ["diffusion", "last_time"]].isna().all(axis=None)


def test_the_long_run_equals_itself_and_shorter_runs_come_closer_with_steps(table):
    plain = table[(table["low_regime"] == "none") & (table["solver"] != "euler_maruyama")]
    for _, rows in plain.groupby("solver"):
        by_steps = rows.set_index("steps")
        assert np.isinf(by_steps.loc[12, "psnr"])
        assert by_steps.loc[12, "ssim"] == pytest.approx(1)
        assert by_steps.loc[12, "feature_distance"] == 0
        assert by_steps.loc[4, "psnr"] < by_steps.loc[8, "psnr"]
        assert by_steps.loc[4, "feature_distance"] > by_steps.loc[8, "feature_distance"] > 0
    stochastic = table[table["solver"] == "euler_maruyama"]
    assert stochastic[["psnr", "ssim", "feature_distance"]].isna().all(axis=None)
    assert table["lpips"].isna().all()  # 8 px
    assert stochastic["fid"].notna().all()


def test_fid_of_a_row_is_that_of_its_images(table, blocks, reference, tmp_path):
    sampler = TEMPLATE.model_copy(update={"solver": "heun", "steps": 8})
    one = BlockSampler(blocks.model, blocks.autoencoder, 1.0, sampler, block=8)
    generate_shard(one, tmp_path / "s.safetensors", images=24)
    pool = Colours()(torch.from_numpy(np.array(read_shard(tmp_path / "s.safetensors")["images"]))).pool
    row = table[(table["solver"] == "heun") & (table["steps"] == 8)].iloc[0]
    assert row["fid"] == pytest.approx(frechet_distance(gaussian_statistics([pool]), reference.pool), rel=1e-9)
    assert row["fid_low"] < row["fid"] < row["fid_high"]
    # neighbours, bootstrap and seed are the study's.
    interval = bootstrap_frechet([pool], reference.pool, replicates=20, seed=3)
    assert (row["fid_low"], row["fid_high"]) == pytest.approx(interval, rel=1e-9)
    coverage = precision_recall(pool, reference.features, neighbours=5)
    assert (row["precision"], row["recall"]) == pytest.approx((coverage.precision, coverage.recall))
    assert row["nfe"] == network_calls(sampler)


def test_a_stopped_sweep_goes_on_and_another_network_starts_again(blocks, reference, tmp_path):
    small = Sweep(solvers=["euler"], steps=[2, 3], base_steps=4, xi=[0.5], low_steps=[1], images=16)
    first = Colours()
    whole, _ = sweep_table(blocks, first, reference, small, EVALUATION, tmp_path, weights="a")
    next(tmp_path.glob("*.json")).unlink()
    again = Colours()
    resumed, _ = sweep_table(blocks, again, reference, small, EVALUATION, tmp_path, weights="a")
    assert resumed.equals(whole)
    assert 0 < again.seen < first.seen
    other = Colours()
    sweep_table(blocks, other, reference, small, EVALUATION, tmp_path, weights="b")
    assert other.seen == first.seen


def test_rows_of_another_reference_evaluation_or_code_are_measured_again(blocks, reference, tmp_path, monkeypatch):
    small = Sweep(solvers=["euler"], thinned=[], steps=[2], base_steps=4, images=16)
    shifted = replace(reference, features=reference.features + 1)  # of the same name
    assert shifted.name == reference.name

    def seen(reference: ReferenceStatistics, evaluation: Evaluation) -> int:
        extractor = Colours()
        sweep_table(blocks, extractor, reference, small, evaluation, tmp_path)
        return extractor.seen

    whole = seen(reference, EVALUATION)
    assert seen(reference, EVALUATION) == 0
    assert seen(shifted, EVALUATION) == whole
    for change in ({"neighbours": 4}, {"bootstrap": 21}, {"seed": 4}):
        assert seen(reference, EVALUATION.model_copy(update=change)) == whole
    assert seen(reference, EVALUATION.model_copy(update={"judge_steps": 1})) == 0  # nothing that the rows depend on
    monkeypatch.setattr(sweep_module, "code_hash", lambda module: "other code")
    assert seen(reference, EVALUATION) == whole


def test_shards_of_a_stopped_sweep_of_another_size_are_not_taken(blocks, reference, tmp_path):
    """The long run outlives its own row; at 24 images it must not stand in for one of 16."""
    small = SWEEP.model_copy(update={"solvers": ["euler"], "thinned": [], "steps": [12], "images": 16})
    expected, _ = sweep_table(blocks, Colours(), reference, small, EVALUATION, tmp_path / "fresh")
    sweep_table(blocks, Colours(), reference, small.model_copy(update={"images": 24}), EVALUATION, tmp_path / "parts")
    assert list((tmp_path / "parts").glob("*.safetensors"))
    found, _ = sweep_table(blocks, Colours(), reference, small, EVALUATION, tmp_path / "parts")
    assert found.equals(expected)
