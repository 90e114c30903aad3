"""The stages of the workflow for pretrained models: files in, files out."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write, read_json, sha256, write_json
from stablevelocity.pretrained.families import FAMILIES, Family, family_named
from stablevelocity.pretrained.generate import Timing, generate, prepare, total
from stablevelocity.pretrained.judge import DigitJudge, judge_accuracy
from stablevelocity.pretrained.picture_files import read_pictures, write_comparison
from stablevelocity.pretrained.prompts import (
    digit_prompts,
    digit_video_prompts,
    read_geneval,
    read_prompts,
    read_t2v_compbench,
    write_prompts,
)
from stablevelocity.pretrained.score import arm_row, capped_psnr, likeness, paired_difference, score_digits
from stablevelocity.pretrained.settings import AUTOENCODER_FROM, VIDEO, Pretrained, PretrainedFamily
from stablevelocity.provenance import code_hash
from stablevelocity.schedulers.accuracy import scheduler_errors

#: Videos in the side-by-side file, and frames a second of the tiny ones, which have only five.
COMPARED_VIDEOS, TINY_FPS = 6, 4


def weights_identity(model: Path | None, chosen: PretrainedFamily, entry: Family) -> str:
    """What names a pipeline's weights: a tiny one's checksums, a folder, or a hub id with its revision."""
    if model is not None:
        return ", ".join(sha256(file)[:16] for file in sorted(model.rglob("*.safetensors")))
    return str(chosen.folder) if chosen.folder else f"{entry.hub_id}@{entry.revision}"


def write_prompt_file(settings: Pretrained, family: str, output: Path) -> None:
    """The prompts of a family's benchmark, in one form for all."""
    chosen = settings.families[family]  # type: ignore[index]
    if chosen.tiny is not None:
        make = digit_video_prompts if family in VIDEO else digit_prompts
        write_prompts(output, make(chosen.prompts_per_task, settings.seed))
        return
    assert chosen.prompts is not None
    read = read_t2v_compbench(chosen.prompts, chosen.category) if family in VIDEO else read_geneval(chosen.prompts)
    write_prompts(output, read)


def train_tiny_model(settings: Pretrained, family: str, autoencoder: Path | None, output: Path) -> None:
    """Train a tiny pipeline; `output` is its `training.json`. `autoencoder`: a pipeline folder to take it from."""
    from stablevelocity.pretrained.tiny import TINY_FAMILIES
    from stablevelocity.pretrained.tiny_training import train_tiny

    budget = settings.families[family].tiny  # type: ignore[index]
    if budget is None:
        raise UserError(f"pretrained.families.{family}.tiny: none, so there is nothing to train")
    donor = None
    if autoencoder:
        source = TINY_FAMILIES[AUTOENCODER_FROM[family]]
        donor = type(source.autoencoder()).from_pretrained(autoencoder / "vae")
    train_tiny(TINY_FAMILIES[family], budget, output.parent, donor)


def generate_arms(
    settings: Pretrained,
    family: str,
    model: Path | None,
    prompts: Path,
    shard: int,
    arms: list[str],
    device: str | None,
    output: Path,
) -> None:
    """All arms of a family on one share of its prompts; the timings go to `output`, pictures to folders beside it."""
    chosen: PretrainedFamily = settings.families[family]  # type: ignore[index]
    entry = family_named(family)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    tiny = chosen.tiny is not None
    pipeline = entry.load(model or chosen.folder, torch.float32 if tiny else None)
    pipeline = prepare(pipeline, place, chosen.offload)
    wanted = read_prompts(prompts)
    source = f"{weights_identity(model, chosen, entry)}, code {code_hash('stablevelocity.pretrained.generate')}"
    timings = {}
    for name in arms:
        arm = entry.arm(name, xi=settings.xi, low_steps=settings.low_steps, noise_factor=settings.noise_factor)
        made = generate(
            entry,
            pipeline,
            arm,
            wanted,
            output.parent / name,
            images=chosen.images,
            seed=settings.seed,
            batch=chosen.batch,
            shard=shard,
            shards=chosen.shards,
            source=source,
        )
        timings[name] = vars(total(made))
    write_json(output, timings)


def score_family(settings: Pretrained, family: str, prompts: Path, shards: list[Path], output: Path) -> None:
    """Table of a family's arms (CSV), and beside it each arm's scores per picture.

    The digit judge scores tiny models. Pictures of the originals are scored by the benchmarks' own tools from the
    folders they lie in (docs/schedulers.md says which), so their rows hold likeness and seconds only.
    """
    chosen: PretrainedFamily = settings.families[family]  # type: ignore[index]
    entry = FAMILIES[family]
    wanted = read_prompts(prompts)
    parts = [read_json(shard) for shard in shards]
    folder = shards[0].parent
    arms = list(parts[0])
    judge = DigitJudge() if chosen.tiny is not None else None
    rows: dict[str, dict[str, Any]] = {}
    psnr: dict[str, np.ndarray] = {}
    for name in arms:
        timing = total([Timing(**part[name]) for part in parts])
        reference = f"{name.split('-')[0]}-long"
        pairs = None if name == reference else likeness(entry, folder / name, folder / reference, wanted, chosen.images)
        summary, error = {"overall": float("nan")}, float("nan")
        if judge is not None:
            per_picture, summary, error = score_digits(entry, folder / name, wanted, chosen.images, judge)
            per_picture.to_csv(folder / name / "scores.csv", index=False)
        rows[name] = arm_row(name, timing, summary, error, pairs)
        if pairs is not None:
            psnr[name] = capped_psnr(pairs)
    for name in rows:
        for other in ("short", "control"):
            against = f"{name.split('-')[0]}-{other}"
            if name.endswith("-stablevs") and against in psnr:
                rows[name] |= paired_difference(f"psnr_over_{other}", psnr[name], psnr[against])
    if entry.is_video:
        main = arms[0].split("-")[0]
        some = list(range(min(COMPARED_VIDEOS, len(wanted))))
        shown = [f"{main}-{kind}" for kind in ("long", "short", "stablevs", "control")]
        videos = [read_pictures(entry, folder / name, wanted, 1, some) for name in shown]
        write_comparison(output.parent, videos, entry.fps if judge is None else TINY_FPS)
    _write_table(pd.DataFrame(rows.values()), output)


def write_judge_accuracy(output: Path) -> None:
    """The digit judge on real scenes of unseen handwriting: the ceiling of its scores."""
    write_json(output, judge_accuracy(DigitJudge()))


def write_scheduler_errors(settings: Pretrained, output: Path) -> None:
    _write_table(
        scheduler_errors(settings.gmm_dimensions, settings.gmm_points, xi=settings.xi, low_steps=settings.low_steps),
        output,
    )


def _write_table(frame: pd.DataFrame, output: Path) -> None:
    with atomic_write(output) as temporary:
        frame.to_csv(temporary, index=False)
