"""Extractors give what their names say; features on disk are computed once and read in order."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from stablevelocity.data.shards import write_manifest, write_shard
from stablevelocity.errors import UserError
from stablevelocity.evaluation import extractors as features
from stablevelocity.evaluation.classifier import (
    DigitClassifier,
    classifier_accuracy,
    load_classifier,
    save_classifier,
    train_classifier,
)
from stablevelocity.evaluation.extractors import (
    FeatureBatch,
    InceptionExtractor,
    extract_features,
    load_extractor,
)
from stablevelocity.evaluation.image_sets import open_images


class Counting:
    """An extractor that says how many images it has seen."""

    name = identity = "counting"

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: torch.Tensor) -> FeatureBatch:
        self.seen += len(images)
        x = images.float()
        return FeatureBatch(x.mean(dim=(1, 2)), x[:, 0].flatten(1), x.amax(dim=(1, 2)))


@pytest.fixture
def source(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (200, 4, 4, 3), dtype=np.uint8)
    write_shard(tmp_path / "a.safetensors", {"images": images})
    write_manifest(tmp_path / "manifest.json", [tmp_path / "a.safetensors"])
    return open_images(tmp_path), torch.from_numpy(images)


def test_features_on_disk_are_those_of_the_images_in_order(source, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "SHARD_ROWS", 64)
    images, pixels = source
    store = extract_features(images, Counting(), tmp_path / "out" / "features.json")
    assert len(store) == 200
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 4
    expected = Counting()(pixels)
    for name in FeatureBatch._fields:
        column = store.column(name)
        torch.testing.assert_close(column.tensor(), getattr(expected, name))
        torch.testing.assert_close(torch.cat(list(column)), column.tensor())  # iterated again
    torch.testing.assert_close(replace(column, chunk=7).tensor(), expected.logits)


def test_a_stopped_pass_goes_on_and_other_weights_or_code_start_again(source, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "SHARD_ROWS", 64)
    images, _ = source
    manifest = tmp_path / "out" / "features.json"
    extract_features(images, Counting(), manifest)
    (tmp_path / "out" / "features-00002.safetensors").write_bytes(b"half a file")
    extractor = Counting()
    extract_features(images, extractor, manifest)
    assert extractor.seen == 64
    extractor.identity = "other weights"
    extract_features(images, extractor, manifest)
    assert extractor.seen == 64 + 200
    # Another version of the code: what it would have made is not known from what is there.
    monkeypatch.setattr(features, "code_hash", lambda module: "other code")
    extract_features(images, extractor, manifest)
    extract_features(images, extractor, manifest)
    assert extractor.seen == 64 + 200 + 200


def test_unknown_extractors_and_absent_weights_are_refused(tmp_path):
    with pytest.raises(UserError, match="'vgg' given, expected one of inception, digits"):
        load_extractor("vgg", tmp_path)
    with pytest.raises(UserError, match=r"no Inception weights; put weights-inception-2015-12-05-6726825d.pth \("):
        load_extractor("inception", tmp_path / "weights.pth")
    (tmp_path / "weights.pth").write_bytes(b"others")
    with pytest.raises(UserError, match=r"SHA-256 .*, expected 6726825d0af5f729"):
        load_extractor("inception", tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"no such file; expected .* of a digit classifier, as `judge` trains it"):
        load_extractor("digits", tmp_path)


@pytest.fixture(scope="module")
def inception(tmp_path_factory) -> FeatureExtractorInceptionV3:
    """torch-fidelity's Inception with random weights: the layers, without the published numbers."""

    class Unfilled(FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict, strict=True, assign=False):
            return None

    path = tmp_path_factory.mktemp("weights") / "none.pth"
    torch.save({}, path)
    torch.manual_seed(0)
    return Unfilled("inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path))


def test_inception_features_are_adms(inception):
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    branch, joined = [], []
    hooks = [
        inception.Mixed_6d.branch1x1.register_forward_hook(lambda *args: branch.append(args[2])),
        inception.Mixed_6d.register_forward_hook(lambda *args: joined.append(args[2])),
    ]
    batch = InceptionExtractor(inception, "random")(images)
    for hook in hooks:
        hook.remove()
    assert batch.pool.shape == (2, 2048)
    assert batch.spatial.shape == (2, 7 * 17 * 17)
    assert batch.logits.shape == (2, 1008)
    # TensorFlow's order: row, column, channel; feature 9 is row 0, column 1, channel 2.
    assert torch.equal(batch.spatial.reshape(2, 17, 17, 7), branch[0][:, :7].permute(0, 2, 3, 1))
    assert torch.equal(batch.spatial[:, 9], joined[0][:, 2, 0, 1])
    torch.testing.assert_close(batch.logits, batch.pool @ inception.fc.weight.T)
    assert inception.fc.bias.abs().max() > 0  # so a bias would have shown


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.repeat(np.repeat((data.images * 15.9).astype(np.uint8), 2, 1), 2, 2)
    images = np.repeat(images[..., None], 3, axis=-1)
    order = np.random.default_rng(0).permutation(len(images))
    return images[order], data.target[order]


def test_the_digit_classifier_knows_digits_it_has_not_seen(digits, tmp_path):
    images, labels = digits
    classifier = train_classifier(images[:1400], labels[:1400], seed=0, steps=200)
    accuracy = classifier_accuracy(classifier, images[1400:], labels[1400:])
    assert accuracy > 0.97  # 99 % expected; 397 digits, one is 0.25 %
    save_classifier(classifier, tmp_path, accuracy=accuracy)
    assert not load_classifier(tmp_path).training
    batch = torch.from_numpy(images[:10])
    for loaded, expected in zip(load_extractor("digits", tmp_path, "cpu")(batch), classifier(batch), strict=True):
        assert torch.equal(loaded, expected)
    assert classifier(batch).pool.shape == (10, 64)
    assert classifier(batch).pool.min() >= 0


def test_training_the_classifier_is_deterministic(digits):
    images, labels = digits
    a, b, c = (train_classifier(images[:300], labels[:300], seed=seed, steps=10) for seed in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.classes.weight, c.classes.weight)


def test_the_classifier_refuses_images_of_another_size():
    classifier = DigitClassifier(size=16, num_classes=10)
    with pytest.raises(UserError, match="8x8 px given, it was trained on 16x16"):
        classifier(torch.zeros(1, 8, 8, 3, dtype=torch.uint8))
    with pytest.raises(UserError, match="size 18 given, expected a multiple of 4"):
        DigitClassifier(size=18, num_classes=10)
