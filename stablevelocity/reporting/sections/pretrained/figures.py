"""Pictures side by side, and PSNR and score over xi."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stablevelocity.pretrained.families import FAMILIES
from stablevelocity.pretrained.picture_files import read_pictures, shrink
from stablevelocity.pretrained.prompts import read_prompts
from stablevelocity.reporting.figures import PUBLISHED_COLOUR, colour, mark_published, marker, new_figure
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
    figure, axes = new_figure(1, 3, height=3.4)
    similarity, score, panel = axes[0]
    for index, (family, rows) in enumerate(tables.pretrained_xi(results).groupby("family", sort=False)):
        for kind, line, name in (("stablevs", "-", ""), ("control", ":", ", control")):
            part = rows[rows["kind"] == kind].set_index("xi").sort_index()
            if len(part) > 1:
                look = {"color": colour(index), "marker": marker(index), "linestyle": line}
                similarity.plot(part["psnr"], label=FAMILIES[family].title + name, **look)
                score.plot(part["score"], **look)
    similarity.set(title="Similarity to the long run", xlabel="xi", ylabel="PSNR, dB")
    similarity.legend()
    score.set(title="Prompt score", xlabel="xi", ylabel="share right")
    panel.plot(results.published(XI).set_index("xi")["psnr"], color=PUBLISHED_COLOUR, marker="o")
    panel.set(xlabel="xi", ylabel="PSNR, dB")
    mark_published(panel, "SD3.5-Large, Euler")
    return figure


def pretrained_images(results: Results) -> Figure:
    """For each image family the arms (rows) by some prompts (columns), from the same noise."""
    names = image_families(results.study)
    figure, axes = new_figure(1, len(names), height=3.2)
    for panel, family in zip(axes[0], names, strict=True):
        prompts, chosen = _prompts(results, family)
        pictures = _pictures(results, family, chosen, lambda picture: shrink(picture, SIDE))
        _mosaic(panel, pictures, list(KINDS.values()) if panel is axes[0, 0] else [""] * len(KINDS), 8)
        width = pictures.shape[3]
        places = [width * (i + 0.5) for i in range(len(chosen))]
        labels = [prompts[prompt] for prompt in chosen]
        panel.set_xticks(places, labels, fontsize=7, rotation=45, ha="right", rotation_mode="anchor")
        panel.set_title(FAMILIES[family].title)
    return figure


def pretrained_videos(results: Results) -> Figure:
    """Some frames of some videos, evenly spread, first and last among them: a row per prompt and arm."""
    names = video_families(results.study)
    figure, axes = new_figure(1, len(names), height=1.4 * PROMPTS)
    for panel, family in zip(axes[0], names, strict=True):
        prompts, chosen = _prompts(results, family)
        count = _pictures(results, family, chosen[:1], lambda video: video[:, :1, :1]).shape[2]
        frames = np.linspace(0, count - 1, min(FRAMES, count)).round().astype(int)
        videos = _pictures(results, family, chosen, lambda video, frames=frames: shrink(video[frames], SIDE))
        labels = [f"{prompts[prompt]}: {kind}" for prompt in chosen for kind in KINDS.values()]
        _mosaic(panel, videos.swapaxes(0, 1).reshape(-1, *videos.shape[2:]), labels, 7)
        width = videos.shape[4]
        panel.set_xticks([width * (i + 0.5) for i in range(len(frames))], [str(frame + 1) for frame in frames])
        panel.set(xlabel="frame", title=FAMILIES[family].title)
    return figure


def _prompts(results: Results, family: str) -> tuple[list[str], list[int]]:
    """All prompts, shortened, and the indices of some that are evenly spread."""
    prompts = [wanted["prompt"] for wanted in read_prompts(results.folder / LAYOUT.prompts(family))]
    chosen = np.linspace(0, len(prompts) - 1, PROMPTS).round().astype(int).tolist()
    return [prompt if len(prompt) <= 28 else prompt[:26] + "..." for prompt in prompts], chosen


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


def _mosaic(panel: Axes, pictures: np.ndarray, labels: list[str], size: float) -> None:
    """(rows, columns, H, W, 3) pictures without gaps, a label at each row."""
    rows, columns, height, width, channels = pictures.shape
    panel.imshow(pictures.swapaxes(1, 2).reshape(rows * height, columns * width, channels))
    panel.set_yticks([height * (i + 0.5) for i in range(rows)], labels, fontsize=size)
    panel.grid(visible=False)
