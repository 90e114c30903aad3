import json

import numpy as np
import pytest

from stablevelocity.errors import UserError
from stablevelocity.pretrained.prompts import (
    digit_prompts,
    digit_requirement,
    digit_video_prompts,
    read_geneval,
    read_prompts,
    read_t2v_compbench,
    write_prompts,
)
from stablevelocity.pretrained.scenes import TASKS, Object, Scene

OFFICIAL = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {
        "tag": "position",
        "include": [{"class": "cow", "count": 1}, {"class": "dog", "count": 1, "position": ["right of", 0]}],
        "prompt": "a photo of a dog right of a cow",
    },
]


def test_a_relation_has_the_official_form():
    # "a dog right of a cow": the cow comes first, the dog's clause points at it.
    scene = Scene("position", (Object(2), Object(5)), "right of")
    assert digit_requirement(scene)["include"] == [
        {"class": "five", "count": 1},
        {"class": "two", "count": 1, "position": ["right of", 0]},
    ]


def test_counting_excludes_one_more():
    entry = digit_requirement(Scene("counting", (Object(4, count=3),)))
    assert entry["include"] == [{"class": "four", "count": 3}]
    assert entry["exclude"] == [{"class": "four", "count": 4}]


def test_prompts_are_distinct_and_the_same_for_a_seed():
    prompts = digit_prompts(12, seed=3)
    assert prompts == digit_prompts(12, seed=3) != digit_prompts(12, seed=4)
    assert len({entry["prompt"] for entry in prompts}) == len(prompts)
    counts = {task: sum(entry["tag"] == task for entry in prompts) for task in TASKS}
    # There are only ten digits.
    assert counts == dict.fromkeys(TASKS, 12) | {"single_object": 10}


def test_prompts_survive_the_disk(tmp_path):
    prompts = digit_video_prompts(5, seed=0)
    write_prompts(tmp_path / "prompts.jsonl", prompts)
    assert read_prompts(tmp_path / "prompts.jsonl") == prompts


def test_the_official_files_are_read(tmp_path):
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in OFFICIAL))
    assert read_geneval(tmp_path / "metadata.jsonl") == OFFICIAL
    (tmp_path / "1_consistent_attr.txt").write_text("A blue car drives past\nTwo dogs\n")
    assert read_t2v_compbench(tmp_path / "1_consistent_attr.txt", "consistent_attr") == [
        {"tag": "consistent_attr", "prompt": "A blue car drives past"},
        {"tag": "consistent_attr", "prompt": "Two dogs"},
    ]


@pytest.mark.parametrize("line", ["not json", '{"tag": "colors"}', "[1]"])
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "metadata.jsonl"
    path.write_text(json.dumps(OFFICIAL[0]) + "\n" + line + "\n")
    with pytest.raises(UserError, match="line 2"):
        read_geneval(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_geneval(tmp_path / "none.jsonl")


def test_no_generator_state_leaks_between_calls():
    np.random.default_rng(0)
    assert digit_video_prompts(3, 0) == digit_video_prompts(3, 0)
