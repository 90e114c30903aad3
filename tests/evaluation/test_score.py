"""The table of metrics agrees with its parts; references are read as ADM writes them; jobs leave whole files."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from stablevelocity.data.shards import write_manifest, write_shard
from stablevelocity.errors import UserError
from stablevelocity.evaluation.classifier import DigitClassifier, save_classifier
from stablevelocity.evaluation.extractors import FeatureBatch, FeatureStore, extract_features
from stablevelocity.evaluation.fidelity import (
    frechet_distance,
    gaussian_statistics,
    inception_score,
    precision_recall,
)
from stablevelocity.evaluation.image_sets import open_images
from stablevelocity.evaluation.score import ReferenceStatistics, metrics_table, nearest_ratio, reference_statistics
from stablevelocity.evaluation.stages import (
    evaluate_any,
    evaluate_real_images,
    evaluate_samples,
    prepare_classifier,
    write_reference,
)
from stablevelocity.study.settings import Evaluation


class Means:
    """8 block means, their cells, and two classes by brightness."""

    name = identity = "means"

    def __call__(self, images: torch.Tensor) -> FeatureBatch:
        x = images.float().mean(dim=3)
        pool = torch.nn.functional.avg_pool2d(x[:, None], 2).flatten(1)
        bright = x.mean(dim=(1, 2)) - 128
        return FeatureBatch(pool, x[:, 0], torch.stack([-bright, bright], dim=1) / 10)


def pictures(count: int, seed: int, brightness: int = 128) -> np.ndarray:
    rng = np.random.default_rng(seed)
    base = rng.integers(brightness - 60, brightness + 60, (count, 1, 1, 1))
    return (base + rng.integers(-40, 40, (count, 4, 4, 3))).clip(0, 255).astype(np.uint8)


def save(folder, images: np.ndarray, labels: np.ndarray | None = None):
    labels = np.zeros(len(images), np.int64) if labels is None else labels
    write_shard(folder / "s.safetensors", {"images": images, "labels": labels})
    write_manifest(folder / "manifest.json", [folder / "s.safetensors"])
    return folder / "manifest.json"


def store_of(folder, images: np.ndarray) -> FeatureStore:
    return extract_features(open_images(save(folder, images)), Means(), folder / "f.json")


@pytest.fixture
def stores(tmp_path):
    return store_of(tmp_path / "fake", pictures(200, 0)), store_of(tmp_path / "real", pictures(150, 1, 140))


@pytest.fixture
def reference(tmp_path, stores):
    return reference_statistics(tmp_path / "real" / "manifest.json", Means(), tmp_path / "work", "real images")


def test_the_table_holds_every_metric_with_an_interval_around_it(stores, reference):
    fake, real = stores
    labels = torch.arange(200) % 2
    table = metrics_table(fake, reference, labels=labels, bootstrap=30).set_index("metric")
    assert list(table.index) == ["fid", "sfid", "is", "precision", "recall", "accuracy", "fid_infinity"]
    pool, target = fake.column("pool").tensor(), real.column("pool").tensor()
    values = table["value"]
    assert values["fid"] == pytest.approx(frechet_distance(gaussian_statistics([pool]), gaussian_statistics([target])))
    spatial = [gaussian_statistics(store.column("spatial")) for store in stores]
    assert values["sfid"] == pytest.approx(frechet_distance(*spatial))
    logits = fake.column("logits").tensor()
    assert values["is"] == pytest.approx(inception_score(logits).mean)
    coverage = precision_recall(pool, target)
    assert (values["precision"], values["recall"]) == (coverage.precision, coverage.recall)
    assert values["accuracy"] == float((logits.argmax(1) == labels).double().mean())
    assert values["fid_infinity"] < values["fid"]
    bounded = table.drop("fid_infinity")
    assert (bounded["low"] < bounded["value"]).all()
    assert (bounded["value"] < bounded["high"]).all()
    assert (table["images"] == 200).all()


def test_no_accuracy_is_said_of_images_for_which_no_class_was_asked(stores, reference):
    """Labels of the null class alone; among others it counts as a class that was missed."""
    fake, _ = stores
    classes = fake.column("logits").tensor().shape[1]
    null = torch.full((200,), classes)
    assert "accuracy" not in set(metrics_table(fake, reference, labels=null, bootstrap=30)["metric"])
    mixed = torch.where(torch.arange(200) < 100, null, 0)
    table = metrics_table(fake, reference, labels=mixed, bootstrap=30).set_index("metric")
    assert table.loc["accuracy", "value"] <= 0.5


def test_few_images_are_cautioned_about_and_what_is_not_defined_is_left_out_and_said(
    tmp_path, stores, reference, caplog
):
    # 4 features in pool and spatial each: 10 images define FID, but not a line of FID against 1/N.
    table = metrics_table(store_of(tmp_path / "few", pictures(10, 3)), reference, bootstrap=5).set_index("metric")
    assert list(table.index) == ["fid", "sfid", "is", "precision", "recall"]
    assert "fid_infinity: left out; needs at least 16 images, four times the 4 features, given 10" in caplog.text
    table = metrics_table(store_of(tmp_path / "three", pictures(3, 3)), reference, bootstrap=5).set_index("metric")
    assert list(table.index) == ["fid", "sfid"]
    assert "3 images for 4 features" in table.loc["fid", "note"]
    assert "fid: 3 images for 4 features" in caplog.text
    assert "is: left out; needs at least 10 images, one per split, given 3" in caplog.text
    assert "precision, recall: left out; needs more than k = 3 images on both sides" in caplog.text
    # k is that of either side: 200 images against 150.
    table = metrics_table(stores[0], reference, neighbours=150, bootstrap=5).set_index("metric")
    assert list(table.index) == ["fid", "sfid", "is", "fid_infinity"]
    assert "k = 150 images on both sides (150 reference images), given 200" in caplog.text
    table = metrics_table(stores[0], reference, neighbours=149, bootstrap=5).set_index("metric")
    assert {"precision", "recall"} <= set(table.index)


def test_features_of_different_weights_are_not_compared(stores, reference):
    reference.extractor = "others"
    with pytest.raises(UserError, match="by means, of the reference by others"):
        metrics_table(stores[0], reference)


def test_an_adm_reference_brings_its_statistics_and_its_images(tmp_path, stores):
    real = stores[1]
    images = pictures(60, 5)
    rng = np.random.default_rng(0)
    mean, spatial_mean = rng.normal(size=4), rng.normal(size=4)
    covariance = np.eye(4) * 3
    path = tmp_path / "batch.npz"
    np.savez(path, arr_0=images, mu=mean, sigma=covariance, mu_s=spatial_mean, sigma_s=2 * covariance)
    reference = reference_statistics(path, Means(), tmp_path / "work")
    np.testing.assert_array_equal(reference.pool.mean, mean)
    np.testing.assert_array_equal(reference.spatial.covariance, 2 * covariance)
    torch.testing.assert_close(reference.features, Means()(torch.from_numpy(images)).pool)
    # Without statistics they come from the images, as for a sample batch.
    np.savez(tmp_path / "plain.npz", arr_0=images)
    plain = reference_statistics(tmp_path / "plain.npz", Means(), tmp_path / "work2")
    assert plain.pool.count == 60
    # Kept as one file and read back.
    reference.save(tmp_path / "reference.safetensors")
    loaded = ReferenceStatistics.load(tmp_path / "reference.safetensors")
    assert metrics_table(real, loaded, bootstrap=5).equals(metrics_table(real, reference, bootstrap=5))
    assert loaded.name == "statistics of batch.npz, its 60 images for precision and recall"
    for name in "abcd":
        loaded.save(tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(4)}, "holds mu but not sigma, mu_s, sigma_s"),
        ({"mu": np.zeros(4), "sigma": np.eye(3), "mu_s": np.zeros(4), "sigma_s": np.eye(4)}, "do not fit each other"),
        (
            {"mu": np.zeros(4), "sigma": np.eye(4) * np.nan, "mu_s": np.zeros(4), "sigma_s": np.eye(4)},
            "mu or sigma holds NaN",
        ),
        (
            {"mu": np.zeros(9), "sigma": np.eye(9), "mu_s": np.zeros(4), "sigma_s": np.eye(4)},
            "statistics of 9 features, but extractor 'means' gives 4",
        ),
    ],
)
def test_damaged_adm_statistics_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "b.npz", arr_0=pictures(20, 0), **arrays)
    with pytest.raises(UserError, match=message):
        reference_statistics(tmp_path / "b.npz", Means(), tmp_path / "work")


def test_memory_of_the_training_images_shows_and_knowing_their_distribution_does_not():
    def draw(count: int, seed: int) -> torch.Tensor:
        return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))

    train, held_out = draw(4000, 0), draw(500, 1)
    fresh, (low, high) = nearest_ratio(draw(2000, 2), train, held_out)
    # Eight times as many train images would be nearer by a quarter if the sets were not made equal.
    assert fresh == pytest.approx(1, abs=0.03)
    assert low < fresh < high
    copies = train[torch.randint(4000, (2000,), generator=torch.Generator().manual_seed(3))]
    # A copy has its original in one of the eight sets of 500, at distance 0: an eighth of the mean is gone.
    repeated, _ = nearest_ratio(copies, train, held_out)
    assert repeated == pytest.approx(7 / 8, abs=0.03)


def test_jobs_from_images_to_tables(tmp_path):
    """Classifier, reference, metrics, baseline, and the verb for any two sets, on files as the workflow leaves them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    images = np.repeat(pictures(300, 0), 2, axis=1).repeat(2, axis=2)
    images[labels == 1, :4] //= 4  # class 1 has a dark upper half
    train = save(tmp_path / "train", images[:200], labels[:200])
    heldout = save(tmp_path / "heldout", images[200:], labels[200:])
    settings = Evaluation(judge_steps=30, bootstrap=5)
    classifier, reference = tmp_path / "m" / "judge.json", tmp_path / "m" / "reference.safetensors"
    prepare_classifier(settings, train, heldout, classifier)
    assert pd.read_json(classifier, typ="series")["held_out_accuracy"] > 0.9
    write_reference(settings, classifier, train, heldout, reference)
    facts = {"run": "cfm-s0", "arm": "cfm", "seed": 0, "step": 10, "sampler": "ode"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluate_samples(settings, classifier, reference, heldout, tmp_path / "ode.csv", facts)
        evaluate_real_images(settings, classifier, reference, heldout, tmp_path / "floor.csv")
        evaluate_any(heldout, train, "digits", classifier.with_suffix(""), tmp_path / "any.csv", None, 5)
    table = pd.read_csv(tmp_path / "ode.csv")
    assert list(table.columns[:6]) == [*facts, "extractor"]
    assert (table["reference"] == "200 train images").all()
    values = table.set_index("metric")["value"]
    assert values["accuracy"] > 0.9
    baseline = pd.read_csv(tmp_path / "floor.csv").set_index("metric")
    assert baseline.loc["fid", "value"] == values["fid"]
    assert baseline.loc["fid_halves", "images"] == 100
    # The held-out images were the samples: no distance to themselves, and the baseline is not taken against them.
    assert values["fid_heldout"] == pytest.approx(0, abs=1e-6)
    assert not {"fid_heldout", "nearest_ratio"} & set(baseline.index)
    any_two = pd.read_csv(tmp_path / "any.csv").set_index("metric")["value"]
    assert any_two["fid"] == pytest.approx(values["fid"], rel=1e-6)


def test_inception_without_its_weights_says_what_to_set(tmp_path):
    save_classifier(DigitClassifier(size=4, num_classes=2), tmp_path / "judge")
    with pytest.raises(UserError, match=r"evaluation.weights must name the file"):
        write_reference(Evaluation(extractor="inception"), None, tmp_path, None, tmp_path / "r.safetensors")
    with pytest.raises(UserError, match="the digit classifier is needed"):
        write_reference(Evaluation(), None, tmp_path, None, tmp_path / "r.safetensors")
