"""T2V-CompBench's consistent attribute binding: does an object keep its attribute through all frames?

Sun et al. 2024, "T2V-CompBench". The official scorer shows a grid of frames to LLaVA-1.6-34B, which answers for each
phrase of the prompt with A (clearly portrayed throughout), B (in some frames), C (not correctly portrayed) or D (not
present); a pair of answers is worth 1 to 5 points, and the score is the mean of (points - 1)/4. For the tiny model the
digit detector gives the same answers from its readings of each frame.

LLaVA is no part of this project; the large model's videos are written as the official scorer takes them, one per prompt
in a folder, as it pairs the sorted files with the prompts by their order (docs/schedulers.md#making-the-papers-tables).
"""

from pathlib import Path

import numpy as np
import pandas as pd

#: Points for the two answers of a prompt with two phrases, in either order (the official table).
PAIR_POINTS = {
    "AA": 5.0, "AB": 4.5, "BB": 4.0, "AC": 3.5, "AD": 3.0,
    "BC": 2.8, "BD": 2.5, "CC": 2.0, "CD": 1.5, "DD": 1.0,
}  # fmt: skip


def video_path(root: Path, category: str, prompt: int) -> Path:
    """Official name of a prompt's video (`prompt` counted from 0): `<root>/consistent_attr/0001.mp4`."""
    return root / category / f"{prompt + 1:04d}.mp4"


def answer(holds: list[bool], present: list[bool]) -> str:
    """For one phrase, by frame: the object is there (`present`), and with its attribute (`holds`)."""
    if any(holds):
        return "A" if all(holds) else "B"
    return "C" if any(present) else "D"


def points(answers: str) -> float:
    """1 to 5 points for the answers of a prompt's phrases; one phrase counts as two equal ones."""
    return PAIR_POINTS["".join(sorted(answers * 2 if len(answers) == 1 else answers))]


def consistency(all_points: list[float]) -> float:
    """The category's score in [0, 1]."""
    return float(np.mean([(value - 1) / 4 for value in all_points]))


def summary(scores: pd.DataFrame) -> dict[str, float]:
    """Of rows with `points` and `motion`: the consistency score and the share of right motions."""
    motion = float(scores["motion"].to_numpy(float).mean())
    return {"consistency": consistency(scores["points"].tolist()), "motion": motion}


def standard_error(scores: pd.DataFrame) -> float:
    """Of the consistency score, over prompts."""
    normalised = (scores["points"].to_numpy(float) - 1) / 4
    prompts = scores["prompt"].to_numpy()
    per_prompt = np.array([normalised[prompts == prompt].mean() for prompt in np.unique(prompts)])
    return float(per_prompt.std(ddof=1) / np.sqrt(len(per_prompt))) if len(per_prompt) > 1 else float("nan")
