"""The stages of the workflow for pretrained models: files in, files out."""

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stablevelocity.errors import UserError
from stablevelocity.experiments.scheduler_accuracy import scheduler_errors
from stablevelocity.files import clear_safetensors_leftovers, read_json, sha256, write_csv, write_json
from stablevelocity.locks import open_lock, private_folder, try_lock
from stablevelocity.pretrained import prompts as prompt_files
from stablevelocity.pretrained import score as scoring
from stablevelocity.pretrained.benchmarks.geneval_detector import load_detector
from stablevelocity.pretrained.detectors import DigitDetector, detector_accuracy
from stablevelocity.pretrained.families import FAMILIES, Family, family_named
from stablevelocity.pretrained.generate import Timing, generate, prepare, total
from stablevelocity.pretrained.picture_files import read_pictures, shrink, write_comparison
from stablevelocity.provenance import code_hash
from stablevelocity.study.pretrained_settings import AUTOENCODER_FROM, SOLVERS, VIDEO, Pretrained, PretrainedFamily

LOG = logging.getLogger(__name__)

#: Videos in the side-by-side files, their longer side, and frames a second of the tiny ones, which have only five.
COMPARED_VIDEOS, COMPARED_SIDE, TINY_FPS = 6, 320, 4


def source_of(entry: Family, folder: Path | None, *, checksums: bool) -> str:
    """What pictures belong to: the weights, and the code that draws.

    Weights are named by checksums, which is quick for a tiny model; by sizes and times of writing and the configs'
    content for another folder; by hub id and revision where there is no folder.
    """
    if folder is None:
        weights = f"{entry.hub_id}@{entry.revision}"
    elif checksums:
        weights = ", ".join(sha256(file)[:16] for file in sorted(folder.rglob("*.safetensors")))
    else:
        parts = [f"{file.relative_to(folder)} {sha256(file)}" for file in sorted(folder.rglob("*.json"))]
        for file in sorted([*folder.rglob("*.safetensors"), *folder.rglob("*.bin")]):
            facts = file.stat()
            parts.append(f"{file.relative_to(folder)} {facts.st_size} {facts.st_mtime_ns}")
        weights = f"folder {hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:16]}"
    return f"{weights}, code {code_hash('stablevelocity.pretrained.generate')}"


@contextlib.contextmanager
def own_device(shard: int, wanted: str | None = None) -> Iterator[str]:
    """The device of a job: the one it is told, else an accelerator for itself, else cpu.

    Of the visible accelerators the `shard`-th (modulo their number) is tried first, then the others; where all are
    taken by jobs of this user on this machine, it waits for the first. A lock holds it, which the system drops with the
    process.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted is not None or count == 0:
        yield wanted or "cpu"
        return
    with contextlib.ExitStack() as stack:
        turns = [(shard + step) % count for step in range(count)]
        folder = private_folder(Path(tempfile.gettempdir()) / f"stablevelocity-{os.geteuid()}")
        # Named by the device itself: the first visible one need not be the first of the machine.
        devices = [torch.cuda.get_device_properties(index).uuid for index in turns]
        locks = [open_lock(folder / f"{device}.lock") for device in devices]
        for lock in locks:
            stack.callback(os.close, lock)
        taken = next((place for place, lock in enumerate(locks) if try_lock(lock) is not False), None)
        if taken is None:
            try_lock(locks[0], wait=True)
        yield f"cuda:{turns[taken or 0]}"


def write_prompt_file(settings: Pretrained, family: str, output: Path) -> None:
    """The prompts of a family's benchmark, in one form for all."""
    chosen = settings.families[family]  # type: ignore[index]
    if chosen.tiny is not None:
        make = prompt_files.digit_video_prompts if family in VIDEO else prompt_files.digit_prompts
        prompt_files.write_prompts(output, make(chosen.prompts_per_task, settings.seed))
        return
    assert chosen.prompts is not None
    prompt_files.write_prompts(output, prompt_files.read_benchmark(family, chosen.prompts, chosen.category))


def train_tiny_model(settings: Pretrained, family: str, autoencoder: Path | None, output: Path) -> None:
    """Train a tiny pipeline; `output` is its `training.json`. `autoencoder`: a pipeline folder to take it from."""
    from stablevelocity.pretrained.tiny import TINY_FAMILIES
    from stablevelocity.pretrained.tiny_training import train_tiny

    budget = settings.families[family].tiny  # type: ignore[index]
    if budget is None:
        raise UserError(f"pretrained.families.{family}.tiny: none, so there is nothing to train")
    clear_safetensors_leftovers(output.parent)
    trained = None
    if autoencoder:
        source = TINY_FAMILIES[AUTOENCODER_FROM[family]]
        trained = type(source.autoencoder()).from_pretrained(autoencoder / "vae")
    train_tiny(TINY_FAMILIES[family], budget, output.parent, trained)


def generate_arms(
    settings: Pretrained, family: str, model: Path | None, prompts: Path, shard: int, device: str | None, output: Path
) -> None:
    """All arms of a family on one share of its prompts; the timings go to `output`, pictures to folders beside it."""
    chosen: PretrainedFamily = settings.families[family]  # type: ignore[index]
    entry = family_named(family)
    tiny = chosen.tiny is not None
    folder = model or chosen.folder
    wanted = prompt_files.read_prompts(prompts)
    source = source_of(entry, folder, checksums=tiny)
    timings = {}
    with own_device(shard, device) as place:
        pipeline = prepare(entry.load(folder, torch.float32 if tiny else None), place, chosen.offload)
        for name in settings.arm_names(family):
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


def score_family(
    settings: Pretrained, family: str, prompts: Path, shards: list[Path], output: Path, pairs_output: Path
) -> None:
    """Table of a family's arms, the arms' differences picture by picture, and each arm's scores in its folder.

    The digit detector scores tiny models. Images of the originals are scored by GenEval's detector where its weights
    are; where they are not, and for videos, one line says so, the benchmarks' own tools score the folders
    (docs/schedulers.md says which), and the score here is NaN.
    """
    chosen: PretrainedFamily = settings.families[family]  # type: ignore[index]
    entry, wanted, folder = FAMILIES[family], prompt_files.read_prompts(prompts), shards[0].parent
    parts = [read_json(shard) for shard in shards]
    score = _scorer(entry, chosen, wanted)
    rows: list[dict[str, Any]] = []
    pictures: dict[str, pd.DataFrame] = {}
    for name in parts[0]:
        timing = total([Timing(**part[name]) for part in parts])
        long_run = f"{name.split('-')[0]}-long"
        pairs = None
        if name != long_run:
            pairs = scoring.similarity_to_long_run(entry, folder / name, folder / long_run, wanted, chosen.images)
        per_picture, summary, error = None, {"overall": float("nan")}, float("nan")
        if score is not None:
            per_picture, summary, error = score(folder / name)
            per_picture.to_csv(folder / name / "scores.csv", index=False)
        rows.append(scoring.arm_row(name, timing, summary, error, pairs))
        pictures[name] = scoring.by_picture(pairs, per_picture)
    write_csv(pairs_output, scoring.paired_differences(pictures))
    write_csv(output, pd.DataFrame(rows))


def _scorer(
    entry: Family, chosen: PretrainedFamily, wanted: list[prompt_files.Requirement]
) -> Callable[[Path], scoring.Scores] | None:
    """What scores the pictures of an arm's folder; None, and a line that says why, where nothing here can."""
    if chosen.tiny is not None:
        digits = DigitDetector()
        if entry.is_video:
            return lambda folder: scoring.score_digit_videos(entry, folder, wanted, chosen.images, digits)
        return lambda folder: scoring.score_images(folder, digits)
    if entry.is_video:
        LOG.warning(f"{entry.name}: no score (NaN): T2V-CompBench's own script scores videos, see docs/schedulers.md")
        return None
    try:
        detector = load_detector(device="cuda" if torch.cuda.is_available() else "cpu")
    except UserError as error:
        LOG.warning(f"{entry.name}: no GenEval score (NaN): {error}")
        return None
    return lambda folder: scoring.score_images(folder, detector)


def compare_videos(settings: Pretrained, family: str, prompts: Path, shard: Path, video: Path, preview: Path) -> None:
    """Some videos of a family side by side, a column per arm of its main solver; `shard` lies beside the arms."""
    chosen: PretrainedFamily = settings.families[family]  # type: ignore[index]
    entry = FAMILIES[family]
    wanted = prompt_files.read_prompts(prompts)
    some = range(min(COMPARED_VIDEOS, len(wanted)))
    columns = []
    for kind in ("long", "short", "stablevs", "control"):
        arm = shard.parent / f"{SOLVERS[family][0]}-{kind}"
        # One by one: an original's video has 75 MB.
        shown = [shrink(read_pictures(entry, arm, wanted, 1, [prompt])[0], COMPARED_SIDE) for prompt in some]
        columns.append(np.stack(shown))
    write_comparison(video, preview, columns, entry.fps if chosen.tiny is None else TINY_FPS)


def write_detector_accuracy(output: Path) -> None:
    """The digit detector on real scenes of unseen handwriting: the ceiling of its scores."""
    write_json(output, detector_accuracy(DigitDetector()))


def write_scheduler_errors(settings: Pretrained, output: Path) -> None:
    dimensions, points = settings.gmm_dimensions, settings.gmm_points
    write_csv(output, scheduler_errors(dimensions, points, xi=settings.xi, low_steps=settings.low_steps))
