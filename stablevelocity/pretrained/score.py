"""Scores of an arm's pictures: the benchmark's, similarity to the long run, seconds."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stablevelocity.evaluation.similarity import compare_images
from stablevelocity.pretrained.benchmarks import geneval, t2v_compbench
from stablevelocity.pretrained.detectors import DigitDetector, score_video
from stablevelocity.pretrained.families import Family
from stablevelocity.pretrained.generate import Timing
from stablevelocity.pretrained.picture_files import read_pictures
from stablevelocity.pretrained.prompts import Requirement

Scores = tuple[pd.DataFrame, dict[str, float], float]
"""Rows per picture, the benchmark's summary, and the standard error of its main number."""


def score_images(folder: Path, detector: geneval.Detector) -> Scores:
    """GenEval's protocol over an arm's images."""
    rows = geneval.score_folder(folder, detector)
    return rows, geneval.summary(rows), geneval.standard_error(rows)


def score_digit_videos(
    family: Family, folder: Path, prompts: list[Requirement], images: int, detector: DigitDetector
) -> Scores:
    """T2V-CompBench's consistency over an arm's videos, by the digit detector."""
    scores = []
    for prompt, wanted in enumerate(prompts):
        for image, video in enumerate(read_pictures(family, folder, prompts, images, [prompt])):
            frames = [detector.read_frame(frame) for frame in video]
            letter, moved = score_video(wanted, frames)
            seen = ", ".join("nothing" if frame is None else f"{frame.color} {frame.digit}" for frame in frames)
            scores.append((prompt, image, letter, t2v_compbench.points(letter), moved, seen))
    rows = pd.DataFrame(scores, columns=["prompt", "image", "answer", "points", "motion", "layout"])
    return rows, t2v_compbench.summary(rows), t2v_compbench.standard_error(rows)


def similarity_to_long_run(
    family: Family, folder: Path, long_run: Path, prompts: list[Requirement], images: int
) -> pd.DataFrame:
    """PSNR and SSIM (LPIPS where its weights are) to the same pictures of the long run; a video counts by frame.

    Rows are in order of (prompt, image, frame), named by prompt and image. Pictures are read prompt by prompt. A
    picture that equals the long run's has infinite PSNR; see `capped_psnr`.
    """
    parts: list[pd.DataFrame] = []
    for prompt in range(len(prompts)):
        ours, theirs = (read_pictures(family, where, prompts, images, [prompt]) for where in (folder, long_run))
        count, frames = len(ours), ours.shape[1] if family.is_video else 1
        if family.is_video:
            ours, theirs = (videos.reshape(-1, *videos.shape[2:]) for videos in (ours, theirs))
        parts.append(compare_images(ours, theirs).assign(prompt=prompt, image=np.repeat(np.arange(count), frames)))
    return pd.concat(parts, ignore_index=True)


def capped_psnr(rows: pd.DataFrame) -> np.ndarray:
    """PSNR of each picture in dB, at most 60: beyond that no 8-bit value differs by one.

    Without a ceiling one picture that comes out equal to the last bit would make a mean infinite.
    """
    return np.minimum(rows["psnr"].to_numpy(float), 60.0)


def by_picture(pairs: pd.DataFrame | None, scores: pd.DataFrame | None) -> pd.DataFrame:
    """By (prompt, image), what of psnr, ssim, score and layout is known; a video's frames count as one picture."""
    parts = []
    if pairs is not None:
        frames = pairs.assign(psnr=capped_psnr(pairs))
        parts.append(frames.groupby(["prompt", "image"])[["psnr", "ssim"]].mean())
    if scores is not None:
        score = "correct" if "correct" in scores else "points"
        named = scores.rename(columns={score: "score"}).set_index(["prompt", "image"])
        scale = 1.0 if score == "correct" else 0.25  # points are 1 to 5, the benchmark's score (points - 1)/4
        parts.append(named.assign(score=named["score"].astype(float) * scale)[["score", "layout"]])
    return pd.concat(parts, axis="columns") if parts else pd.DataFrame()


def paired_differences(pictures: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Each StableVS arm minus its solver's short run, control and long run, picture by picture, of `by_picture`.

    Columns arm, against, prompt, image; psnr, ssim, score; flips: by how much more often (1, 0 or -1 in one picture)
    the detector reads another layout than in the long run.
    """
    parts = []
    for arm in [name for name in pictures if name.endswith("-stablevs")]:
        solver = arm.split("-")[0]
        long = pictures[f"{solver}-long"]
        for other in [kind for kind in ("short", "control", "long") if f"{solver}-{kind}" in pictures]:
            ours, theirs = pictures[arm], pictures[f"{solver}-{other}"]
            numbers = [name for name in ("psnr", "ssim", "score") if name in ours and name in theirs]
            if not numbers:  # the long run, where nothing scores the pictures
                continue
            part = ours[numbers] - theirs[numbers]
            if "layout" in long:
                flips = [(one["layout"] != long["layout"]).astype(int) for one in (ours, theirs)]
                part["flips"] = flips[0] - flips[1]
            parts.append(part.reset_index().assign(arm=arm, against=other))
    frame = pd.concat(parts) if parts else pd.DataFrame()
    return frame.reindex(columns=["arm", "against", "prompt", "image", "psnr", "ssim", "score", "flips"])


def arm_row(
    name: str, timing: Timing, summary: dict[str, float], error: float, pairs: pd.DataFrame | None
) -> dict[str, Any]:
    """One row of tables 4 and 5. Seconds are per picture."""
    row: dict[str, Any] = {"arm": name}
    row |= {key: getattr(timing, key) for key in ("steps", "low_steps", "pictures")}
    main = "consistency" if "consistency" in summary else "overall"
    row |= {"score": summary[main], "score_error": error}
    row |= {f"score_{key}": value for key, value in summary.items() if key != main}
    if pairs is not None:
        row |= {"psnr": float(capped_psnr(pairs).mean()), "ssim": float(pairs["ssim"].to_numpy(float).mean())}
        if "lpips" in pairs:
            row["lpips"] = float(pairs["lpips"].to_numpy(float).mean())
    seconds = {key: getattr(timing, key) / timing.pictures for key in ("end_to_end", "denoising", "low_regime")}
    return row | {f"seconds_{key}": value for key, value in seconds.items()}
