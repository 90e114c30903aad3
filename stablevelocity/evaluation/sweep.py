"""Few-step study and same-noise study of one trained network (docs/evaluation.md#few-steps-same-noise).

Every sampler makes images from the same noise and labels. FID against the number of network calls answers how few steps
a network needs; similarity to the long run of the same solver, image by image, is the paper's own measure of StableVS.
Beside StableVS always stands its control arm, the base solver on the same thinned grid.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stablevelocity.data.shards import read_shard
from stablevelocity.evaluation.extractors import BATCH, Extractor
from stablevelocity.evaluation.fidelity import frechet_distance, gaussian_statistics, inception_score, precision_recall
from stablevelocity.evaluation.intervals import bootstrap_frechet
from stablevelocity.evaluation.score import ReferenceStatistics
from stablevelocity.evaluation.similarity import compare_images
from stablevelocity.files import read_json, write_json
from stablevelocity.progress import Progress
from stablevelocity.provenance import code_hash
from stablevelocity.sampling.generate import BlockSampler, generate_shard
from stablevelocity.sampling.run_sampler import network_calls, sampler_times
from stablevelocity.sampling.stablevs import is_euler
from stablevelocity.study.settings import Evaluation, Sampler, Sweep

SIMILARITIES = ("psnr", "ssim", "lpips", "feature_distance")


def sweep_samplers(sweep: Sweep, template: Sampler) -> Iterator[Sampler]:
    """All samplers of a sweep: the plain ones per solver; StableVS and control for each xi and low_steps.

    The rest is the template's. Where there is nothing to thin both arms are left out: the control would be the plain
    sampler.
    """
    template = template.model_copy(update={"shift": sweep.shift})
    for solver in sweep.solvers:
        for steps in sorted({*sweep.steps, sweep.base_steps}):
            yield template.model_copy(update={"solver": solver, "steps": steps, "low_regime": "none"})
    for solver in sweep.thinned:
        base = template.model_copy(update={"solver": solver, "steps": sweep.base_steps, "low_regime": "none"})
        for xi in sweep.xi:
            for low_steps in sweep.low_steps:
                for low_regime in ("stablevs", "control"):
                    thinned = base.model_copy(update={"low_regime": low_regime, "xi": xi, "low_steps": low_steps})
                    if len(sampler_times(thinned)) < len(sampler_times(base)):
                        yield thinned


def sweep_table(
    blocks: BlockSampler,
    extractor: Extractor,
    reference: ReferenceStatistics,
    sweep: Sweep,
    evaluation: Evaluation,
    folder: Path,
    *,
    weights: str = "",
    processes: int = 1,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run a sweep: (one row per sampler, one row per sampler and image).

    Columns: the sampler's settings (NaN where it has none), nfe (network calls per image); drawn_as, "stablevs" for a
    control arm whose images are those of StableVS to the last bit and were not drawn again; fid with its bootstrap
    interval fid_low, fid_high; is, precision, recall; SIMILARITIES, means over the images against the run of
    `base_steps`. These are NaN for Euler-Maruyama, whose noise differs once the grid does, and lpips where its weights
    are not at hand. The second table has the columns of `_which`, image (the same number: the same noise and label) and
    the image's SIMILARITIES. Rows that a stopped call has left in `folder` are kept, unless they depend on anything
    that has changed since; the caller removes it.
    """
    samplers = list(sweep_samplers(sweep, blocks.sampler))
    row_depends_on = {
        "weights": weights,
        "extractor": extractor.identity,
        "reference": reference.identity,
        "sweep": [sweep.images, sweep.base_steps],
        "evaluation": evaluation.model_dump(mode="json", include={"neighbours", "bootstrap", "seed"}),
        "code": code_hash("stablevelocity.evaluation.sweep"),
    }

    def shard_of(sampler: Sampler) -> Path:
        """Made if it is not there. Its name holds the number of images: a stopped sweep of another size leaves shards
        that must not be taken for this one's.
        """
        one = replace(blocks, sampler=sampler)
        shard = folder / f"{one.identity(f'{weights} {sweep.images} images')[:16]}.safetensors"
        if not shard.exists():
            generate_shard(one, shard, images=sweep.images, processes=processes, weights=weights)
        return shard

    def drawn(sampler: Sampler) -> Sampler:
        """Whose images a sampler's are, bit for bit: Euler's control arm takes the steps of StableVS."""
        control = sampler.solver == "euler" and sampler.low_regime == "control"
        same = control and is_euler(blocks.path, sampler.noise_factor)
        return sampler.model_copy(update={"low_regime": "stablevs"}) if same else sampler

    progress = Progress(f"sweep {folder.name}", len(samplers), "samplers")
    rows, images = [], []
    for sampler in samplers:
        file = folder / f"{replace(blocks, sampler=drawn(sampler)).identity(json.dumps(row_depends_on))[:16]}.json"
        if not file.exists():
            long_run = None
            if sampler.solver != "euler_maruyama":
                long_run = shard_of(sampler.model_copy(update={"steps": sweep.base_steps, "low_regime": "none"}))
            shard = shard_of(sampler)
            write_json(file, _metrics(shard, long_run, extractor, reference, evaluation))
            if shard != long_run:
                shard.unlink()
        stochastic = sampler.solver == "euler_maruyama"
        measured, which = read_json(file), _which(sampler)
        images.append(pd.DataFrame({**which, "image": range(measured["similar"]), **measured["similarity"]}))
        rows.append(
            {
                **which,
                "diffusion": sampler.diffusion if stochastic else np.nan,
                "last_time": sampler.last_time if stochastic else np.nan,
                "guidance": sampler.guidance,
                "guidance_low": sampler.guidance_interval[0],
                "guidance_high": sampler.guidance_interval[1],
                "labels": sampler.labels,
                "images": sweep.images,
                "reference_steps": sweep.base_steps,
                "extractor": extractor.name,
                "reference": reference.name,
                "drawn_as": drawn(sampler).low_regime,
                "shift": np.nan if stochastic else sampler.shift,
                **measured["metrics"],
            }
        )
        progress.update(fid=rows[-1]["fid"])
    return pd.DataFrame(rows), pd.concat(images, ignore_index=True)


def _which(sampler: Sampler) -> dict[str, str | float]:
    """Columns that name a sampler of a sweep."""
    thinned = sampler.low_regime != "none"
    return {
        "solver": sampler.solver,
        "low_regime": sampler.low_regime,
        "steps": sampler.steps,
        "nfe": network_calls(sampler),
        "xi": sampler.xi if thinned else np.nan,
        "low_steps": sampler.low_steps if thinned else np.nan,
    }


def _metrics(
    shard: Path, long_run: Path | None, extractor: Extractor, reference: ReferenceStatistics, evaluation: Evaluation
) -> dict[str, Any]:
    """`metrics` of one sampler's images, read in batches, and `similarity` to the long run, image by image."""
    images = read_shard(shard)["images"]
    pool, logits, similarities = [], [], []
    for start in range(0, len(images), BATCH):
        batch = np.array(images[start : start + BATCH])
        features = extractor(torch.from_numpy(batch))
        pool.append(features.pool)
        logits.append(features.logits)
        if long_run is not None:
            long = np.array(read_shard(long_run)["images"][start : start + BATCH])
            similarities.append(compare_images(batch, long, extractor=extractor))
    low, high = bootstrap_frechet(pool, reference.pool, replicates=evaluation.bootstrap, seed=evaluation.seed)
    coverage = precision_recall(torch.cat(pool), reference.features, neighbours=evaluation.neighbours)
    row = {
        "fid": frechet_distance(gaussian_statistics(pool), reference.pool),
        "fid_low": low,
        "fid_high": high,
        "is": inception_score(torch.cat(logits)).mean,
        "precision": coverage.precision,
        "recall": coverage.recall,
        **dict.fromkeys(SIMILARITIES, np.nan),
    }
    if not similarities:
        return {"metrics": row, "similar": 0, "similarity": {}}
    pairs = pd.concat(similarities)
    means = pairs.mean()
    row |= {name: float(means[name]) for name in SIMILARITIES if name in means}
    return {"metrics": row, "similar": len(pairs), "similarity": pairs.to_dict("list")}
