"""The workflow's evaluation jobs: judge, reference, scores of a set, the floor between real sets."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from stablevelocity.data.shards import ShardSet
from stablevelocity.errors import UserError
from stablevelocity.evaluation.classifier import judge_accuracy, save_judge, train_judge
from stablevelocity.evaluation.extractors import Extractor, extract_features, load_extractor
from stablevelocity.evaluation.image_sets import open_images
from stablevelocity.evaluation.intervals import real_floor
from stablevelocity.evaluation.score import Reference, adm_reference, reference_from_features, score
from stablevelocity.files import atomic_write, write_json
from stablevelocity.progress import log
from stablevelocity.study.settings import Evaluation


def prepare_judge(settings: Evaluation, train: Path, heldout: Path, output: Path) -> None:
    """Train the judge on the train images into the folder named like `output`; describe it there."""
    images, held_out = ShardSet(train), ShardSet(heldout)
    judge = train_judge(images.all("images"), images.all("labels"), seed=settings.seed, steps=settings.judge_steps)
    accuracy = {
        "train_accuracy": judge_accuracy(judge, images.all("images"), images.all("labels")),
        "held_out_accuracy": judge_accuracy(judge, held_out.all("images"), held_out.all("labels")),
    }
    save_judge(judge, output.with_suffix(""), **accuracy)
    parameters = sum(parameter.numel() for parameter in judge.parameters())
    write_json(output, {**judge.config, **accuracy, "parameters": parameters, "steps": settings.judge_steps})


def open_extractor(settings: Evaluation, judge: Path | None) -> Extractor:
    """The study's extractor: the judge described in `judge`, or Inception from `evaluation.weights`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if settings.extractor == "digits":
        if judge is None:
            raise UserError("evaluation.extractor is digits: the judge is needed (--judge)")
        return load_extractor("digits", judge.with_suffix(""), device)
    if settings.weights is None:
        raise UserError("evaluation.extractor is inception: evaluation.weights must name the file of its weights")
    return load_extractor(settings.extractor, settings.weights, device)


def write_reference(settings: Evaluation, judge: Path | None, train: Path, output: Path) -> None:
    """Statistics and features of the reference: the ADM batch of the study, or its train images."""
    extractor = open_extractor(settings, judge)
    work = output.parent / "features" / "reference"
    if settings.reference is not None:
        reference = adm_reference(settings.reference, extractor, work)
    else:
        store = extract_features(open_images(train), extractor, work / "features.json")
        reference = reference_from_features(store, f"{len(store):,} train images")
    reference.save(output)


def score_samples(
    settings: Evaluation,
    judge: Path | None,
    reference: Path,
    samples: Path,
    output: Path,
    facts: dict[str, str | int],
) -> None:
    """Score a set of samples (its manifest); `facts` (run, arm, seed, step, sampler) lead every row.

    The features stay in `features/` beside the reference, so another bootstrap or k needs no second pass.
    """
    extractor = open_extractor(settings, judge)
    loaded = Reference.load(reference)
    work = reference.parent / "features" / "-".join(str(fact) for fact in facts.values()) / "features.json"
    store = extract_features(open_images(samples), extractor, work)
    labels = torch.from_numpy(ShardSet(samples).all("labels")) if extractor.name == "digits" else None
    table = score(
        store,
        loaded,
        labels=labels,
        neighbours=settings.neighbours,
        bootstrap=settings.bootstrap,
        seed=settings.seed,
    )
    write_table(table, {**facts, "extractor": extractor.name}, output)


def score_floor(settings: Evaluation, judge: Path | None, reference: Path, heldout: Path, output: Path) -> None:
    """Score the held-out real images like samples, and halves of the reference's images against each other.

    The rows are those of a set of samples, and fid_halves: FID at half the reference's own size.
    """
    score_samples(settings, judge, reference, heldout, output, {"sampler": "real"})
    loaded = Reference.load(reference)
    floor = real_floor([loaded.features], seed=settings.seed)
    halves = {
        "sampler": "real",
        "extractor": settings.extractor,
        "metric": "fid_halves",
        "value": floor.mean,
        "low": floor.low,
        "high": floor.high,
        "images": floor.images,
        "reference": f"the other {floor.images:,}",
        "note": "mean, lowest and highest of 10 splits, not an interval",
    }
    table = pd.concat([pd.read_csv(output), pd.DataFrame([halves])])
    write_table(table, {}, output)


def score_sets(
    samples: Path,
    reference: Path,
    extractor: str,
    weights: Path,
    output: Path,
    features: Path | None,
    bootstrap: int,
) -> None:
    """Score any images against any others; `features` keeps the features for another call."""
    images = open_images(samples)  # first: a mistake shows before the reference has been worked through
    network = load_extractor(extractor, weights, "cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        work = features or Path(scratch)
        if reference.suffix == ".npz":
            held_against = adm_reference(reference, network, work / "reference")
        else:
            store = extract_features(open_images(reference), network, work / "reference" / "features.json")
            held_against = reference_from_features(store, f"{len(store):,} images of {reference.name}")
        store = extract_features(images, network, work / "samples" / "features.json")
        table = score(store, held_against, bootstrap=bootstrap)
    write_table(table, {"extractor": network.name}, output)
    for row in table.to_dict("records"):
        log.info(f"{row['metric']}: {row['value']:.6g} [{row['low']:.6g}, {row['high']:.6g}] {row['note']}")


def write_table(table: pd.DataFrame, facts: dict, output: Path) -> None:
    """CSV with `facts` as leading columns."""
    for place, (name, value) in enumerate(facts.items()):
        table.insert(place, name, value)
    with atomic_write(output) as temporary:
        table.replace({None: np.nan}).to_csv(temporary, index=False)
