"""GenEval's detector with tiny networks of the real classes and random weights, saved and loaded as the real ones."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from stablevelocity.errors import UserError
from stablevelocity.pretrained.benchmarks.geneval import score_folder, summary, write_metadata
from stablevelocity.pretrained.benchmarks.geneval_detector import (
    CLIP,
    COLORS,
    DETECTOR,
    MOST_OBJECTS,
    NAMES,
    REVISIONS,
    load_detector,
)


def save_mask2former(folder, classes=80):
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
        SwinConfig,
    )

    swin = SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=8,
        num_labels=classes,
    )
    model = Mask2FormerForUniversalSegmentation(config)
    with torch.no_grad():
        # Sure of some class for every query; untrained, all would be equally unlikely.
        model.class_predictor.weight.mul_(400)
    model.save_pretrained(folder)
    Mask2FormerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


def save_clip(folder):
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz-"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **small,
            "vocab_size": len(tokens),
            "max_position_embeddings": 77,
            "bos_token_id": len(tokens) - 2,
            "eos_token_id": len(tokens) - 1,
        },
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("detector")
    torch.manual_seed(0)
    save_mask2former(root / "mask2former")
    save_clip(root / "clip")
    return root / "mask2former", root / "clip"


@pytest.fixture(scope="module")
def detector(folders):
    return load_detector(*folders)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8)


def test_objects_come_with_class_box_confidence_and_colour(detector, image):
    found = detector(image, "colors")
    assert found
    for thing in found:
        left, top, right, bottom = thing.box
        # Pixels of the picture itself, not of the square that the network saw.
        assert 0 <= left < right <= 96
        assert 0 <= top < bottom <= 48
        assert thing.name in NAMES
        assert 0.3 <= thing.confidence <= 1
        assert thing.color() in COLORS
    assert max(thing.box[2] for thing in found) > 48
    confidences = [thing.confidence for thing in found]
    assert confidences == sorted(confidences, reverse=True)
    assert max(np.unique([thing.name for thing in found], return_counts=True)[1]) <= MOST_OBJECTS


def test_counting_is_stricter(detector, image):
    counted = detector(image, "counting")
    assert all(thing.confidence >= 0.9 for thing in counted)
    assert len(counted) < len(detector(image, "colors"))


def test_an_image_in_which_nothing_is_found_holds_nothing(detector, image, monkeypatch):
    monkeypatch.setattr("stablevelocity.pretrained.benchmarks.geneval_detector.THRESHOLD", 1.0)
    assert detector(image, "colors") == []


def test_a_folder_is_scored_end_to_end(detector, image, tmp_path):
    # What the random networks see is asked for, so that both right and wrong pictures are among them.
    seen = detector(image, "single_object")[0]
    for prompt, (name, tag) in enumerate([(seen.name, "single_object"), ("zebra", "colors")]):
        include = {"class": name, "count": 1, **({"color": "red"} if tag == "colors" else {})}
        samples = write_metadata(tmp_path, prompt, {"tag": tag, "include": [include], "prompt": name})
        Image.fromarray(image).save(samples / "0000.png")
    scores = score_folder(tmp_path, detector)
    assert len(scores) == 2
    assert bool(scores["correct"][0])
    assert summary(scores)["single_object"] == 1
    assert 0 <= summary(scores)["overall"] <= 1


def test_the_classes_are_cocos():
    assert len(NAMES) == len(set(NAMES)) == 80
    # Indices in COCO's own order.
    assert (NAMES[0], NAMES[15], NAMES[40], NAMES[79]) == ("person", "cat", "wine glass", "toothbrush")


def test_a_detector_of_other_classes_is_refused(folders, tmp_path):
    save_mask2former(tmp_path / "other", classes=150)
    with pytest.raises(UserError, match="has 150 classes, expected COCO's 80"):
        load_detector(tmp_path / "other", folders[1])


@pytest.mark.parametrize("absent", [DETECTOR, CLIP])
def test_absent_weights_end_in_one_line_with_the_command(absent, folders):
    detector, clip = (absent, folders[1]) if absent == DETECTOR else (folders[0], absent)
    with pytest.raises(UserError) as refusal:
        load_detector(detector, clip)
    message = str(refusal.value)
    assert "\n" not in message
    assert f"stablevelocity download {absent} --revision {REVISIONS[absent] or '<commit>'}" in message
