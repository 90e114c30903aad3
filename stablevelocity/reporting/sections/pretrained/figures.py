"""Pictures side by side, and PSNR and score over xi."""

import textwrap
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from stablevelocity.pretrained.families import FAMILIES
from stablevelocity.pretrained.picture_files import read_pictures, shrink
from stablevelocity.pretrained.prompts import read_prompts
from stablevelocity.reporting.figures import (
    INCHES,
    PUBLISHED_COLOUR,
    colour,
    is_wide,
    legend_below,
    mark_published,
    marker,
    mosaic,
    panels,
)
from stablevelocity.reporting.results import Results
from stablevelocity.reporting.sections.pretrained import XI, image_families, tables, video_families
from stablevelocity.reporting.spec import LAYOUT
from stablevelocity.study.pretrained_settings import SOLVERS

KINDS = {"long": "long", "short": "short", "stablevs": "StableVS", "control": "control"}
PROMPTS = 6
FRAMES = 5
"""Of a video, at most."""
SIDE = 256
"""Pixels of a picture's longer side: more than that is not seen in a panel of twenty-four."""


def pretrained_xi(results: Results) -> Figure:
    """PSNR to the long run and score over xi, per family; the paper's own sweep beside."""
    figure, (similarity, score, panel) = panels(3, height=2.3)
    for index, (family, rows) in enumerate(tables.pretrained_xi(results).groupby("family", sort=False)):
        for kind, line, name in (("stablevs", "-", ""), ("control", ":", ", control")):
            part = rows[rows["kind"] == kind].set_index("xi").sort_index()
            if len(part) > 1:
                look = {"color": colour(index), "marker": marker(index), "linestyle": line}
                similarity.plot(part["psnr"], label=FAMILIES[family].title + name, **look)
                score.plot(part["score"], **look)
    similarity.set(title="Similarity to the long run", xlabel="xi", ylabel="PSNR, dB")
    score.set(title="Prompt score", xlabel="xi", ylabel="share right")
    panel.plot(results.published(XI).set_index("xi")["psnr"], color=PUBLISHED_COLOUR, marker="o")
    panel.set(xlabel="xi", ylabel="PSNR, dB")
    mark_published(panel, "SD3.5-Large, Euler")
    for axis in (similarity, score, panel):
        axis.locator_params(axis="x", nbins=5)
    legend_below(figure, *similarity.get_legend_handles_labels())
    return figure


def pretrained_images(results: Results) -> Figure:
    """For each image family some prompts (rows) by the ways of sampling (columns), from the same noise."""
    names = image_families(results.study)
    figure, axes = panels(len(names), height=3.6 if is_wide() else 4.0)
    for axis, family in zip(axes, names, strict=True):
        prompts = _prompts(results, family)
        pictures = _pictures(results, family, list(prompts), lambda picture: shrink(picture, SIDE))
        named = is_wide() and axis is not axes[0]
        mosaic(axis, pictures.swapaxes(0, 1), [""] * len(prompts) if named else list(prompts.values()))
        axis.set_xticks(axis.get_images()[0].get_size()[1] * (np.arange(len(KINDS)) + 0.5) / len(KINDS))
        axis.set_xticklabels(KINDS.values(), rotation=30, ha="left", rotation_mode="anchor")
        axis.set_title(FAMILIES[family].title)
    return figure


def pretrained_videos(results: Results) -> Figure:
    """Some frames (columns) of some videos, evenly spread: a panel per prompt, a row per way of sampling."""
    wanted = [(family, *one) for family in video_families(results.study) for one in _prompts(results, family).items()]
    frames_of = {family: _frames(results, family) for family, *_ in wanted}
    figure, axes = panels(len(wanted), columns=2, height=INCHES["column"] * 0.85)
    for axis, (family, prompt, words) in zip(axes, wanted, strict=True):
        frames = frames_of[family]
        videos = _pictures(results, family, [prompt], lambda video, frames=frames: shrink(video[frames], SIDE))
        mosaic(axis, videos[:, 0], list(KINDS.values()), [f"frame {frame + 1}" for frame in frames])
        axis.set_title(f"{FAMILIES[family].title}: {words}")
    return figure


def _frames(results: Results, family: str) -> np.ndarray:
    """Indices of some frames, first and last among them."""
    count = _pictures(results, family, [0], lambda video: video[:, :1, :1]).shape[2]
    return np.linspace(0, count - 1, min(FRAMES, count)).round().astype(int)


def _prompts(results: Results, family: str) -> dict[int, str]:
    """Some prompts that are evenly spread, by their index, in lines that fit beside a picture."""
    prompts = [wanted["prompt"] for wanted in read_prompts(results.folder / LAYOUT.prompts(family))]
    chosen = np.linspace(0, len(prompts) - 1, PROMPTS).round().astype(int).tolist()
    return {index: textwrap.fill(prompts[index], 16, max_lines=4, placeholder=" …") for index in chosen}


def _pictures(results: Results, family: str, chosen: list[int], reduced: Callable[..., np.ndarray]) -> np.ndarray:
    """(arms, prompts, ...): first picture of each chosen prompt, main base solver.

    Pictures are read and `reduced` one by one: a video of an original has 75 MB.
    """
    prompts = read_prompts(results.folder / LAYOUT.prompts(family))
    folder = (results.folder / LAYOUT.family_shard(family)).parent
    columns = []
    for kind in KINDS:
        arm = folder / f"{SOLVERS[family][0]}-{kind}"
        columns.append([reduced(read_pictures(FAMILIES[family], arm, prompts, 1, [prompt])[0]) for prompt in chosen])
    return np.array(columns)
