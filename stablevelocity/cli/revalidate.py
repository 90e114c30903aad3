"""`stablevelocity revalidate`: a piece of each kept result, made again with today's code and compared.

Trained runs go some steps on from a kept checkpoint; of a shard of latents or features the first slice is encoded
again; of a shard of generated images the first block is drawn again. Where device and versions are those of then, bits
must agree; else numbers, within `TOLERANCE` (chosen by benchmarks/replays.py).
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
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

TOLERANCE = {"fp32": 0.001, "bf16": 0.01, "fp16": 0.01}
"""For `spread`, on another device or with other versions, by precision: above what rounding does (see benchmarks)."""
NOT_COMPARED = {"step", "images_per_s", "memory_mb"}

Pair = tuple[np.ndarray, np.ndarray]  # what was made again, and what was kept
Replay = Callable[[], tuple[str, list[Pair]]]  # what was done, and what came out


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
        if replay is None or (kind[1] not in (runs or known) if kind[0] in ("runs", "samples") else runs):
            continue
        # The sums of several processes, added up, have other last bits than those of one.
        here = {"processes": 1, **environment()}
        exact = all(record.facts.get(key) == value for key, value in here.items() if key != "made")
        what, pairs = replay()
        largest = max((spread(new, old) for new, old in pairs), default=np.inf)
        agrees = largest <= (0 if exact else TOLERANCE[_precision(kind, study)])
        how = "equal bits" if largest == 0 else f"largest difference {largest:.1e} of the largest number"
        how = how if np.isfinite(largest) else "other labels, shapes or steps"
        if agrees:
            code = trainers_code() if module is None else code_hash(module)
            record.add_check(code=code, by=f"{what}, {how}", **environment())
        yield Outcome(record, agrees, f"{what}, {how}")
    if (results / SEAL).exists():
        seal(results)


def spread(new: np.ndarray, old: np.ndarray) -> float:
    """Largest difference of two arrays as a share of the largest number; of pixels (uint8) the mean one.

    Infinite for labels or steps that are not equal, and for a NaN in one of them only.
    """
    if new.shape != old.shape or new.dtype != old.dtype:
        return np.inf
    compared = ~(np.isnan(new) & np.isnan(old))
    new, old = new[compared], old[compared]
    if np.array_equal(new, old):
        return 0.0
    difference = np.abs(new.astype(float) - old)
    share = (difference.mean() if new.dtype == np.uint8 else difference.max()) / np.abs(old.astype(float)).max()
    return float(share) if np.isfinite(share) and new.dtype != np.int64 else np.inf


def _precision(kind: tuple[str, ...], study: Study) -> str:
    """Of what made a result."""
    if kind[0] == "runs":
        return study.runs()[kind[1]].training.precision
    return study.sampling.precision if kind[0] == "samples" else "fp32"


def _replay_of(kind: tuple[str, ...], record: Record, study: Study, steps: int) -> tuple[Replay | None, str | None]:
    """(function that replays a piece, module of the stage; None for training, which knows its own)."""
    if kind[0] == "runs" and kind[-1] == "metrics.csv":
        return lambda: _train(record, study, kind[1], steps), None
    if kind[:2] == ("data", "latents") and kind[-1].endswith(".safetensors"):
        images, autoencoder = record.inputs
        return lambda: _encode(latent_encoder(autoencoder), images, record.first), "stablevelocity.data.stages.latents"
    if kind[:2] == ("data", "features") and kind[-1].endswith(".safetensors"):
        images, encoder = record.inputs
        model = open_encoder(encoder)
        return (
            lambda: _encode(lambda pixels: named_tokens(model, pixels), images, record.first),
            "stablevelocity.data.stages.features",
        )
    if kind[0] == "samples" and kind[-1].startswith("shard-"):
        return lambda: _sample(record, study, kind[3]), "stablevelocity.sampling.stages"
    return None, None


def _encode(encode: Callable[[np.ndarray], dict[str, np.ndarray]], images: Path, shard: Path) -> tuple[str, list[Pair]]:
    pixels, kept = np.array(read_shard(images)["images"][:SLICE]), read_shard(shard)
    pairs = [(new.astype(np.float16), np.array(kept[name][:SLICE])) for name, new in encode(pixels).items()]
    return f"{len(pixels)} images encoded", pairs


def _sample(record: Record, study: Study, sampler: str) -> tuple[str, list[Pair]]:
    weights, autoencoder = record.inputs
    sampling = study.sampling
    drawn, _ = open_sampler(weights, autoencoder, study.sampler(sampler), sampling)
    number = shard_blocks(sampling.images, sampling.block, int(record.first.stem[-5:]), sampling.shards).start
    kept, block = read_shard(record.first), drawn.sample(number)
    count = min(sampling.block, len(kept["labels"]))
    new = {"images": block.images.numpy(), "labels": block.labels.numpy()}
    return f"block {number} drawn", [(new[name][:count], np.array(kept[name][:count])) for name in new]


class _Replay(Trainer):
    """Goes from one step to another in a folder of its own, and exports nothing."""

    def export(self) -> None:
        pass


def _train(record: Record, study: Study, name: str, steps: int) -> tuple[str, list[Pair]]:
    run, files = study.runs()[name], RunFiles(record.first.parent)
    latents, features = [*record.inputs, None][:2]
    kept = files.checkpoints(read_info(files.weights(run.steps[-1]))["hash"])
    start, following = _span(checkpoint_steps(kept))
    logged = pd.read_csv(record.first, index_col="step")
    # At least to the next row of metrics.csv.
    end = min([step for step in logged.index if step >= start + steps] or [run.training.steps])
    with tempfile.TemporaryDirectory() as folder:
        trainer = _Replay(run, latents, features, Path(folder))
        if start:
            trainer.checkpoints.mkdir(parents=True)
            checkpoint_path(trainer.checkpoints, start).symlink_to(checkpoint_path(kept, start).resolve())
        trainer.train(lambda: trainer.step + 1 >= end)
        rows = pd.read_csv(trainer.checkpoints / "metrics.csv", index_col="step").loc[start + 1 :]
        old = logged.reindex(rows.index)
        pairs = [(rows[k].to_numpy(float), old[k].to_numpy(float)) for k in rows if k in old and k not in NOT_COMPARED]
        what = f"steps {start} to {end} trained, {len(rows)} rows"
        if following is not None and following <= end:
            new, known = (load_tensors(checkpoint_path(place, following))[0] for place in (trainer.checkpoints, kept))
            pairs += [(_array(new.get(k)), _array(known.get(k))) for k in new.keys() | known.keys()]
            what += f" and the state of step {following}"
    return what, pairs if len(rows) else []


def _array(tensor: torch.Tensor | None) -> np.ndarray:
    if tensor is None:
        return np.zeros(0)
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()  # numpy has no bfloat16


def _span(steps: list[int]) -> tuple[int, int | None]:
    """The last kept step after which another is kept, and that one; (0, the first) without two."""
    if len(steps) < 2:
        return 0, steps[0] if steps else None
    return steps[-2], steps[-1]
