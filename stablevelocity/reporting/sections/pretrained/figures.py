"""Pictures side by side, and PSNR and score over xi."""

from collections.abc import Callable
from typing import Any

import numpy as np

from stablevelocity.pretrained.families import FAMILIES
from stablevelocity.pretrained.picture_files import read_pictures, shrink
from stablevelocity.pretrained.prompts import read_prompts
from stablevelocity.reporting import figures
from stablevelocity.reporting.sections.pretrained import FRAMES, families
from stablevelocity.reporting.sections.pretrained.tables import sweep as sweep_table
from stablevelocity.reporting.source import Source
from stablevelocity.study.pretrained_settings import SOLVERS

KINDS = {"long": "long", "short": "short", "stablevs": "StableVS", "control": "control"}
PROMPTS = 6
#: Pixels of a picture's longer side: more than that is not seen in a panel of twenty-four.
SIDE = 256


def sweep(source: Source) -> Any:
    """PSNR to the long run and score over xi, per family; the paper's own sweep beside."""
    table = sweep_table(source)
    figure, axes = figures.new_figure(1, 3, height=3.4)
    for index, (family, rows) in enumerate(table.groupby("family", sort=False)):
        for kind, style in (("stablevs", "-"), ("control", ":")):
            line = rows[rows["kind"] == kind].sort_values("xi")
            if len(line) < 2:
                continue
            label = FAMILIES[str(family)].title + (", control" if kind == "control" else "")
            look: dict[str, Any] = {"color": figures.colour(index), "marker": figures.marker(index), "linestyle": style}
            axes[0, 0].plot(line["xi"], line["psnr"], label=label, **look)
            axes[0, 1].plot(line["xi"], line["score"], label=label, **look)
    axes[0, 0].set(title="Likeness to the long run", xlabel="xi", ylabel="PSNR, dB")
    axes[0, 1].set(title="Prompt score", xlabel="xi", ylabel="share right")
    axes[0, 0].legend()
    published = source.published_csv("ablation_xi_sampling.csv")
    panel = axes[0, 2]
    panel.plot(published["xi"], published["psnr"], color=figures.PUBLISHED_COLOUR, marker="o")
    panel.set(xlabel="xi", ylabel="PSNR, dB")
    figures.mark_published(panel, "SD3.5-Large, Euler")
    return figure


def images(source: Source) -> Any:
    """For each image family the arms (rows) by some prompts (columns), from the same noise."""
    names = families(source.study, video=False)
    figure, axes = figures.new_figure(1, len(names), height=3.2)
    for number, (panel, family) in enumerate(zip(axes[0], names, strict=True)):
        panels, prompts, kinds = _pictures(source, family)
        height, width = panels.shape[2:4]
        panel.imshow(panels.transpose(1, 2, 0, 3, 4).reshape(len(kinds) * height, len(prompts) * width, 3))
        panel.set_title(FAMILIES[family].title)
        panel.set_xticks(
            [width * (i + 0.5) for i in range(len(prompts))],
            [_short(prompt) for prompt in prompts],
            fontsize=7,
            rotation=45,
            ha="right",
            rotation_mode="anchor",
        )
        labels = [KINDS[kind] if number == 0 else "" for kind in kinds]
        panel.set_yticks([height * (i + 0.5) for i in range(len(kinds))], labels, fontsize=8)
        panel.grid(visible=False)
    return figure


def videos(source: Source) -> Any:
    """Some frames of some videos: a row per prompt and arm."""
    names = families(source.study, video=True)
    figure, axes = figures.new_figure(1, len(names), height=1.4 * PROMPTS)
    for panel, family in zip(axes[0], names, strict=True):
        videos, prompts, kinds, numbers = _videos(source, family)
        count, arms, frames, height, width, _ = videos.shape
        strips = videos.transpose(0, 1, 3, 2, 4, 5).reshape(count * arms * height, frames * width, 3)
        panel.imshow(strips)
        labels = [f"{_short(prompt)}: {KINDS[kind]}" for prompt in prompts for kind in kinds]
        panel.set_yticks([height * (i + 0.5) for i in range(len(labels))], labels, fontsize=7)
        panel.set_xticks([width * (i + 0.5) for i in range(frames)], [str(number) for number in numbers])
        panel.set_xlabel("frame")
        panel.set_title(FAMILIES[family].title)
        panel.grid(visible=False)
    return figure


def _pictures(source: Source, family: str) -> tuple[np.ndarray, list[str], list[str]]:
    """(prompts, arms, H, W, 3) pictures of evenly spread prompts, first image each, main base solver; with prompts
    and arms."""
    return _read(source, family, lambda picture: shrink(picture, SIDE))


def _videos(source: Source, family: str) -> tuple[np.ndarray, list[str], list[str], list[int]]:
    """As `_pictures`, (prompts, arms, frames, H, W, 3), of evenly spread frames, first and last among them, and the
    numbers of these, counted from 1."""
    chosen: list[int] = []

    def few(video: np.ndarray) -> np.ndarray:
        chosen[:] = np.linspace(0, len(video) - 1, min(FRAMES, len(video))).round().astype(int).tolist()
        return shrink(video[chosen], SIDE)

    return *_read(source, family, few), [index + 1 for index in chosen]


def _read(
    source: Source, family: str, reduced: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, list[str], list[str]]:
    """Pictures are read and reduced one by one: a video of an original has 75 MB."""
    folder = source.results / "pretrained" / family
    prompts = read_prompts(folder / "prompts.jsonl")
    chosen = np.linspace(0, len(prompts) - 1, PROMPTS).round().astype(int)
    kinds = list(KINDS)
    columns = []
    for kind in kinds:
        where = folder / "samples" / f"{SOLVERS[family][0]}-{kind}"
        column = [reduced(read_pictures(FAMILIES[family], where, prompts, 1, [int(p)])[0]) for p in chosen]
        columns.append(np.stack(column))
    return np.stack(columns, axis=1), [prompts[p]["prompt"] for p in chosen], kinds


def _short(prompt: str) -> str:
    return prompt if len(prompt) <= 28 else prompt[:26] + "..."
