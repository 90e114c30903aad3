from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stablevelocity.pretrained.benchmarks.t2v_compbench import (
    answer,
    consistency,
    points,
    standard_error,
    summary,
    video_path,
)


def test_videos_are_named_in_the_prompts_order_from_one():
    assert video_path(Path("video"), "consistent_attr", 0) == Path("video/consistent_attr/0001.mp4")
    assert video_path(Path("video"), "motion_binding", 99).name == "0100.mp4"


@pytest.mark.parametrize(
    "holds, present, expected",
    [
        ([True, True], [True, True], "A"),
        ([True, False], [True, True], "B"),
        ([False, False], [True, False], "C"),
        ([False, False], [False, False], "D"),
    ],
)
def test_answers_are_the_official_four(holds, present, expected):
    assert answer(holds, present) == expected


@pytest.mark.parametrize("pair, value", [("AA", 5), ("BA", 4.5), ("CB", 2.8), ("DD", 1), ("A", 5), ("B", 4), ("D", 1)])
def test_points_are_the_official_table_in_either_order(pair, value):
    assert points(pair) == value


def test_the_score_runs_from_zero_to_one():
    assert consistency([5.0, 5.0]) == 1
    assert consistency([1.0]) == 0
    assert consistency([5.0, 1.0, 3.0]) == 0.5


def test_the_error_counts_prompts():
    rows = pd.DataFrame({"prompt": [0, 0, 1, 1], "points": [5.0, 5.0, 1.0, 3.0], "motion": [True, True, False, True]})
    assert summary(rows) == {"consistency": 0.625, "motion": 0.75}
    # Prompt means 1 and 1/4.
    assert standard_error(rows) == pytest.approx(np.std([1, 0.25], ddof=1) / np.sqrt(2))
