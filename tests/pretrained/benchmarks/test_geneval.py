import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stablevelocity.errors import UserError
from stablevelocity.pretrained.benchmarks.geneval import (
    DetectedObject,
    is_correct,
    layout,
    relative_position,
    score_folder,
    standard_error,
    summary,
    write_metadata,
)


def thing(name, box=(0, 0, 10, 10), confidence=0.9, color="red"):
    return DetectedObject(name, tuple(map(float, box)), confidence, lambda: color)


def test_all_wanted_objects_must_be_there():
    wanted = {"include": [{"class": "cup", "count": 2}]}
    assert not is_correct(wanted, [thing("cup")])
    assert is_correct(wanted, [thing("cup")] * 2)
    # Three cups are no fault unless an exclude clause says so.
    assert is_correct(wanted, [thing("cup")] * 3)
    assert not is_correct(wanted | {"exclude": [{"class": "cup", "count": 3}]}, [thing("cup")] * 3)
    assert not is_correct(wanted, [thing("cup"), thing("dog")])


def test_the_most_confident_object_must_have_the_colour():
    wanted = {"include": [{"class": "cup", "count": 1, "color": "red"}]}
    blue_first = [thing("cup", confidence=0.5), thing("cup", confidence=0.8, color="blue")]
    assert not is_correct(wanted, blue_first)
    assert is_correct(wanted, [thing("cup", confidence=0.9), thing("cup", confidence=0.8, color="blue")])


def test_a_position_is_asked_of_the_later_clause():
    wanted = {"include": [{"class": "cow", "count": 1}, {"class": "dog", "count": 1, "position": ["right of", 0]}]}
    left, right = (0, 0, 10, 10), (40, 0, 50, 10)
    assert is_correct(wanted, [thing("cow", left), thing("dog", right)])
    assert not is_correct(wanted, [thing("cow", right), thing("dog", left)])
    assert not is_correct(wanted, [thing("dog", right)])


@pytest.mark.parametrize(
    "b, expected",
    [
        ((40, 0, 50, 10), {"left of"}),
        ((0, 40, 10, 50), {"above"}),
        ((40, 40, 50, 50), {"left of", "above"}),
        # Centres (3, 0) apart; the threshold takes 0.1 * 20 = 2 off: 1/3 of the way is not beyond one half.
        ((3, 0, 13, 10), set()),
        # 5 apart leaves 3/5.
        ((5, 0, 15, 10), {"left of"}),
        ((0, 0, 10, 10), set()),
        # 40 along and 20 across, less 2 each: 38/44.7 is beyond one half, 18/44.7 is not.
        ((40, 20, 50, 30), {"left of"}),
    ],
)
def test_relative_position_by_hand(b, expected):
    assert relative_position((0.0, 0.0, 10.0, 10.0), tuple(map(float, b))) == expected


SCORES = pd.DataFrame(
    {
        "prompt": [0, 0, 1, 1, 2, 2],
        "image": [0, 1] * 3,
        "tag": ["colors"] * 4 + ["counting"] * 2,
        "correct": [True, True, True, False, False, False],
    }
)


def test_overall_is_the_mean_of_tasks_not_of_images():
    assert summary(SCORES) == {"colors": 0.75, "counting": 0.0, "overall": 0.375}


def test_the_error_counts_prompts():
    # Task means per prompt: colors 1 and 1/2, variance 1/8 over 2 prompts; counting needs two prompts too.
    two = pd.concat([SCORES, SCORES[4:].assign(prompt=3, correct=True)])
    assert standard_error(two) == pytest.approx(np.sqrt(0.125 / 2 + 0.5 / 2) / 2)
    assert np.isnan(standard_error(SCORES))


def test_a_folder_in_the_official_layout_is_scored(tmp_path):
    for p, (shade, wanted) in enumerate([(200, "bright"), (10, "dark"), (10, "bright")]):
        entry = {"tag": "colors", "include": [{"class": wanted, "count": 1}], "prompt": wanted}
        Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(write_metadata(tmp_path, p, entry) / "0000.png")
        assert json.loads((tmp_path / f"{p:05d}" / "metadata.jsonl").read_text()) == entry
    scores = score_folder(tmp_path, lambda image, tag: [thing("bright" if image.mean() > 100 else "dark")])
    assert scores["correct"].tolist() == [True, True, False]


def test_a_layout_says_what_is_where_whatever_the_order_of_detection():
    def at(name, *box):
        return DetectedObject(name, box, 0.9, lambda: "red")

    both = [at("dog", 50, 60, 90, 90), at("cat", 0, 0, 30, 30)]
    assert layout(both, 100, 100) == layout(both[::-1], 100, 100) == "cat top left, dog bottom right"
    assert layout([at("cat", 60, 0, 90, 30)], 100, 100) == "cat top right"
    assert layout([], 100, 100) == ""


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no images"):
        score_folder(tmp_path, lambda image, tag: [])
