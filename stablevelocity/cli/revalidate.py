"""`stablevelocity revalidate`: a piece of each kept result, made again with today's code and compared.

Trained runs go some steps on from a kept checkpoint; of a shard of latents or features the first slice is encoded
again; of a shard of generated images the first block is drawn again. Where device and versions are those of then, bits
must agree; else numbers, within `TOLERANCE`.
"""

import csv
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from stablevelocity.data.encoding import SLICE
from stablevelocity.data.shards import read_shard
from stablevelocity.data.stages.features import named_tokens, open_encoder
from stablevelocity.data.stages.latents import latent_encoder
from stablevelocity.errors import UserError
from stablevelocity.models.weight_files import load_tensors, read_info
from stablevelocity.provenance import code_hash, environment
from stablevelocity.records import SEAL, Record, read_records, seal
from stablevelocity.sampling.generate import shard_blocks
from stablevelocity.sampling.stages import open_sampler
from stablevelocity.study import Study, load_study
from stablevelocity.study.layout import RunFiles
from stablevelocity.training.checkpoints import checkpoint_path, checkpoint_steps
from stablevelocity.training.identity import trainers_code
from stablevelocity.training.trainer import Trainer

TOLERANCE = 0.01
"""On another device or with other versions: of the largest number among those compared; pixels on average."""
NOT_COMPARED = {"images_per_s", "memory_mb"}


class Outcome(NamedTuple):
    record: Record
    agrees: bool
    by: str  # what was compared, and how it came out


def revalidate(results: Path, runs: list[str], steps: int) -> Iterator[Outcome]:
    """Replay a piece of each result that can be, of all or of some runs; note in the records what agrees."""
    study = load_study(results / "study.json")
    known = set(study.runs())
    if unknown := set(runs) - known:
        raise UserError(f"--runs: no such run {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    for record in read_records(results):
        kind = record.first.relative_to(results).parts
        replay, module = _replay_of(kind, record, study, steps)
        if replay is None or (runs and not (kind[0] in ("runs", "samples") and kind[1] in runs)):
            continue
        # The sums of several processes, added up, have other last bits than those of one.
        here = {"processes": 1, **environment()}
        exact = all(record.facts.get(key) == value for key, value in here.items() if key != "made")
        agrees, what = replay(exact)
        how = "equal bits" if exact else f"within {TOLERANCE:g} of the largest"
        outcome = Outcome(record, agrees, f"{what}, {how}" if agrees else f"{what}, not {how}")
        if agrees:
            record.add_check(
                code=trainers_code() if module is None else code_hash(module), by=outcome.by, **environment()
            )
        yield outcome
    if (results / SEAL).exists():
        seal(results)


Replay = Callable[[bool], tuple[bool, str]]


def _replay_of(kind: tuple[str, ...], record: Record, study: Study, steps: int) -> tuple[Replay | None, str | None]:
    """(function that replays a piece and compares it, module of the stage; None for training, which knows its own)."""
    if kind[0] == "runs" and kind[-1] == "metrics.csv":
        return lambda exact: _train(record, study, kind[1], steps, exact), None
    if kind[:2] == ("data", "latents") and kind[-1].endswith(".safetensors"):
        images, autoencoder = record.inputs
        return lambda exact: _encode(
            latent_encoder(autoencoder), images, record.first, exact
        ), "stablevelocity.data.stages.latents"
    if kind[:2] == ("data", "features") and kind[-1].endswith(".safetensors"):
        images, encoder = record.inputs
        model = open_encoder(encoder)
        return (
            lambda exact: _encode(lambda pixels: named_tokens(model, pixels), images, record.first, exact),
            "stablevelocity.data.stages.features",
        )
    if kind[0] == "samples" and kind[-1].startswith("shard-"):
        return lambda exact: _sample(record, study, kind[3], exact), "stablevelocity.sampling.stages"
    return None, None


def _close(new: np.ndarray, old: np.ndarray, exact: bool) -> bool:
    if new.shape != old.shape or exact:
        return np.array_equal(new, old, equal_nan=np.issubdtype(old.dtype, np.floating))
    difference, largest = np.abs(new.astype(float) - old), np.abs(old.astype(float)).max()
    return bool((difference.mean() if old.dtype == np.uint8 else difference.max()) <= TOLERANCE * largest)


def _encode(
    encode: Callable[[np.ndarray], dict[str, np.ndarray]], images: Path, shard: Path, exact: bool
) -> tuple[bool, str]:
    pixels, kept = np.array(read_shard(images)["images"][:SLICE]), read_shard(shard)
    agrees = all(
        _close(new.astype(np.float16), np.array(kept[name][:SLICE]), exact) for name, new in encode(pixels).items()
    )
    return agrees, f"{len(pixels)} images encoded"


def _sample(record: Record, study: Study, sampler: str, exact: bool) -> tuple[bool, str]:
    weights, autoencoder = record.inputs
    sampling = study.sampling
    drawn, _ = open_sampler(weights, autoencoder, study.sampler(sampler), sampling)
    number = shard_blocks(sampling.images, sampling.block, int(record.first.stem[-5:]), sampling.shards).start
    kept, block = read_shard(record.first), drawn.sample(number)
    count = min(sampling.block, len(kept["labels"]))
    agrees = _close(block.images.numpy()[:count], np.array(kept["images"][:count]), exact)
    return agrees and bool((block.labels.numpy()[:count] == kept["labels"][:count]).all()), f"block {number} drawn"


class _Replay(Trainer):
    """Goes from one step to another in a folder of its own, and exports nothing."""

    def export(self) -> None:
        pass


def _train(record: Record, study: Study, name: str, steps: int, exact: bool) -> tuple[bool, str]:
    run, files = study.runs()[name], RunFiles(record.first.parent)
    latents, features = [*record.inputs, None][:2]
    kept = files.checkpoints(read_info(files.weights(run.steps[-1]))["hash"])
    start, following = _span(checkpoint_steps(kept))
    logged = _rows(record.first)
    # At least to the next row of metrics.csv.
    end = min([step for step in logged if step >= start + steps] or [run.training.steps])
    with tempfile.TemporaryDirectory() as folder:
        trainer = _Replay(run, latents, features, Path(folder))
        if start:
            trainer.checkpoints.mkdir(parents=True)
            checkpoint_path(trainer.checkpoints, start).symlink_to(checkpoint_path(kept, start).resolve())
        trainer.train(lambda: trainer.step + 1 >= end)
        rows = {step: row for step, row in _rows(trainer.checkpoints / "metrics.csv").items() if step > start}
        agrees = bool(rows) and all(_same_row(row, logged.get(step, {}), exact) for step, row in rows.items())
        what = f"steps {start} to {end} trained, {len(rows)} rows"
        if following is not None and following <= end:
            new, old = (load_tensors(checkpoint_path(place, following))[0] for place in (trainer.checkpoints, kept))
            agrees &= _same_state(new, old, exact)
            what += f" and the state of step {following}"
    return agrees, what


def _span(steps: list[int]) -> tuple[int, int | None]:
    """The last kept step after which another is kept, and that one; (0, the first) without two."""
    if len(steps) < 2:
        return 0, steps[0] if steps else None
    return steps[-2], steps[-1]


def _rows(path: Path) -> dict[int, dict[str, str]]:
    with open(path, newline="") as file:
        return {int(row["step"]): row for row in csv.DictReader(file)}


def _same_row(new: dict[str, str], old: dict[str, str], exact: bool) -> bool:
    compared = set(new) - NOT_COMPARED
    if exact or not compared <= set(old):
        return all(new[name] == old.get(name) for name in compared)
    return all(abs(float(new[k]) - float(old[k])) <= TOLERANCE * abs(float(old[k])) for k in compared if new[k])


def _same_state(new: dict[str, torch.Tensor], old: dict[str, torch.Tensor], exact: bool) -> bool:
    return new.keys() == old.keys() and all(
        torch.equal(new[name], old[name]) if exact else _close(new[name].numpy(), old[name].numpy(), False)
        for name in old
    )
