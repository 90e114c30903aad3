"""A plan counts each run's work from the network itself, and each cost where it falls."""

import csv
import math
import re
from pathlib import Path

import pytest

from stablevelocity.cli.plan import (
    UTILISATION,
    Planner,
    Throughput,
    network_rows,
    plan,
    plan_text,
    read_measured,
    tables_of,
)
from stablevelocity.errors import UserError
from stablevelocity.reference_bank import ReferenceBank
from stablevelocity.study import Study, load_study
from stablevelocity.study.settings import Sampler

CONFIG = Path(__file__).parents[2] / "config"


@pytest.fixture(scope="module")
def imagenet() -> Study:
    return load_study(CONFIG / "imagenet256.yaml")


@pytest.fixture(scope="module")
def planner(imagenet: Study) -> Planner:
    return Planner(imagenet, Throughput(peak=100.0, utilisation=0.5), devices=32, per_run=8)


def test_operations_and_parameters_are_the_published_ones(planner: Planner) -> None:
    """SiT-XL/2 takes 118.6 billion multiply-adds (as DiT-XL/2: 118.64) and has 675,111,184 parameters."""
    flops, parameters = planner.network(planner.runs["sit-s0"])
    assert flops / 2e9 == pytest.approx(118.6, abs=0.1)
    assert parameters == 675_111_184
    assert planner.network(planner.runs["repa-b-s0"])[1] == 137_845_008


def test_training_hours_are_work_over_throughput(planner: Planner) -> None:
    flops, _ = planner.network(planner.runs["sit-s0"])
    seconds = 100_000 * 256 * 3 * flops / 50e12
    assert planner.training_hours(planner.runs["sit-s0"], 100_000) == pytest.approx(seconds / 3600)


def test_a_measured_rate_takes_the_place_of_the_assumed_one(imagenet: Study) -> None:
    measured = Planner(imagenet, Throughput(measured={"SiT-XL/2": 500.0}), devices=8, per_run=8)
    hours = measured.training_hours(measured.runs["sit-s0"], 100_000)
    assert hours == pytest.approx(100_000 * 256 / 500 / 3600)
    # The same rate, and the encoder's forward pass at every step on top: 6.5 % of SiT-XL/2's three.
    repa = measured.training_hours(measured.runs["repa-s0"], 100_000)
    assert repa / hours == pytest.approx(1.064, abs=0.005)


def test_a_checkpoint_with_a_bank_takes_what_the_bank_holds() -> None:
    """The rows of all classes and, by default, as many again for the null class: as the trainer makes it."""
    digits = Planner(load_study(CONFIG / "digits-arms.yaml"), Throughput(), devices=1, per_run=1)
    plain, stable = digits.runs["cfm-s0"], digits.runs["stablevm-s0"]
    bank = ReferenceBank(10, 128, digits.latent_shape, null_capacity=1280)
    # Of the last two checkpoints the last is that of the final step, the one that is kept.
    assert digits.disk([stable], []) - digits.disk([plain], []) == 2 * bank.state_dict()["rows"].nbytes


def test_guided_calls_count_twice_where_guidance_is_on() -> None:
    """50 Euler calls at t = 1, 0.98 ... 0.02: of them 35 lie at or below 0.7."""
    assert network_rows(Sampler(solver="euler", steps=50)) == 50
    guided = Sampler(solver="euler", steps=50, guidance=1.8, guidance_interval=(0.0, 0.7))
    assert network_rows(guided) == pytest.approx(50 + 35)


def test_data_takes_what_its_arrays_take(imagenet: Study, planner: Planner) -> None:
    images = 1_281_167
    assert "features" not in planner.data()  # made at every step
    stored = imagenet.model_copy(update={"encoder": imagenet.encoder.model_copy(update={"online": False})})
    assert Planner(stored, Throughput(), devices=8, per_run=8).data() == {
        "images": images * 256 * 256 * 3,
        "latents": images * 2 * 2 * 4 * 32 * 32,  # mean and standard deviation, half precision
        "features": images * 257 * 768 * 2,
    }


def test_tables_name_the_arms_of_the_paper(imagenet: Study) -> None:
    tables = {name: {(run, step) for run, step, _ in sets} for name, sets in tables_of(imagenet).items()}
    assert ("stablevm-va-repa-long-s0", 2_401_920) in tables["table 1 (guided)"]
    assert ("repa-b-s2", 100_000) in tables["table 2 (model sizes)"]
    assert ("repa-s0", 400_000) in tables["table 2 (model sizes)"]
    third = {run.rsplit("-s", 1)[0] for run, _ in tables["table 3 (alignments)"]}
    assert third == {"repa", "irepa", "reg", "stablevm-va-repa", "stablevm-va-irepa", "stablevm-va-reg"}
    assert {step for _, step in tables["table 3 (alignments)"]} == {100_000}
    regimes = {run.rsplit("-s", 1)[0] for run, _ in tables["figure 3b (regimes)"]}
    assert regimes == {"sit", "repa", "repa-low", "repa-high"}


def test_the_arms_that_the_paper_compares_are_runs(imagenet: Study) -> None:
    names = {run.arm for run in imagenet.runs().values()}
    assert {"sit", "repa", "irepa", "reg", "stablevm", "va-repa", "stablevm-repa"} <= names
    assert {"repa-low", "repa-high", "xi-0.6", "xi-0.8", "bank-64", "schedule-snr", "stablevm-va-repa"} <= names
    assert len([run for run in imagenet.runs() if run.startswith("stablevm-va-reg-s")]) == 3


def test_the_total_counts_shared_runs_once_and_a_table_trains_no_further_than_it_needs(imagenet: Study) -> None:
    found = plan(imagenet, Throughput(), devices=32, per_run=8)
    rows = {row.name: row for row in found.tables}
    assert found.total.training_hours == pytest.approx(sum(row.training_hours for row in found.arms))
    assert found.total.runs == len(imagenet.runs())
    # REPA runs to 400,000 for table 2, but table 3 reads it at 100,000.
    assert rows["table 3 (alignments)"].training_hours < rows["table 2 (model sizes)"].training_hours
    # The longest run decides: 480 epochs of XL/2 on 8 devices.
    longest = max(row.training_hours / row.runs / 8 for row in found.arms)
    assert found.total.wall_hours >= longest
    text = plan_text(found)
    assert "stablevm-va-repa-long" in text
    assert "39% of the peak" in text


def test_more_devices_for_a_run_than_there_are_is_refused(imagenet: Study) -> None:
    with pytest.raises(UserError, match="16 devices for a run, but only 8"):
        plan(imagenet, Throughput(), devices=8, per_run=16)


def test_measured_rates_are_numbers_or_metrics(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    with open(file, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerows([["step", "images_per_s"], [100, 390.0], [200, 410.0], [300, 411.0]])
    assert read_measured(["SiT-XL/2=450.5", f"SiT-B/2={file}"]) == {"SiT-XL/2": 450.5, "SiT-B/2": 410.0}
    for wrong in ("SiT-XL/2", "SiT-XL/2=fast"):
        with pytest.raises(UserError, match="MODEL=IMAGES_PER_SECOND"):
            read_measured([wrong])
    assert math.isclose(read_measured(["x=1e3"])["x"], 1000)


def test_the_utilisation_is_the_one_measured(imagenet: Study) -> None:
    """benchmarks/GPU.md's images a second times the network's own operations, over the peak of an H100."""
    page = (Path(__file__).parents[2] / "benchmarks" / "GPU.md").read_text()
    trained = float(re.search(r"\| CFM, compiled \|.*?\| (\d+) \| \d+ % \|", page)[1])
    sampled = float(re.search(r"blocks of 64, compiled \| ([\d.]+)", page)[1])
    planner = Planner(imagenet, Throughput(), devices=8, per_run=8)
    forward, _ = planner.network(planner.runs["sit-s0"])
    rows = network_rows(imagenet.sampling.samplers["sde-guided"])
    assert trained * 3 * forward / 989e12 == pytest.approx(UTILISATION, abs=0.005)
    assert sampled * rows * forward / 989e12 == pytest.approx(UTILISATION, abs=0.02)


def test_a_folder_is_counted(imagenet: Study, tmp_path: Path) -> None:
    """Three pictures of two classes: the shards, and the label table, are theirs and not ImageNet's."""
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / name).touch()
    images = imagenet.images.model_copy(update={"path": tmp_path, "count": None})
    here = plan(imagenet.model_copy(update={"images": images}), Throughput(), devices=8, per_run=8)
    assert here.data["images"] == 3 * 256 * 256 * 3
    assert here.notes[0] == "data: 3 train images, 2 classes"
    elsewhere = plan(imagenet, Throughput(), devices=8, per_run=8)
    assert elsewhere.data["images"] == 1_281_167 * 256 * 256 * 3
    assert elsewhere.notes[0].startswith("data: 1,281,167 train images, 1,000 classes (taken for granted: ")
