"""What the verbs of evaluation do but for `sweep`, from files to files."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from stablevelocity.data.shards import ShardSet
from stablevelocity.errors import UserError
from stablevelocity.evaluation.classifier import classifier_accuracy, save_classifier, train_classifier
from stablevelocity.evaluation.extractors import Extractor, extract_features, load_extractor
from stablevelocity.evaluation.image_sets import open_images
from stablevelocity.evaluation.intervals import real_baseline
from stablevelocity.evaluation.score import ReferenceStatistics, metrics_table, reference_statistics
from stablevelocity.files import write_csv, write_json
from stablevelocity.progress import log
from stablevelocity.study.settings import Evaluation


def prepare_classifier(settings: Evaluation, train: Path, heldout: Path, output: Path) -> None:
    """Train the digit classifier on the train images into the folder named like `output`; describe it there."""
    parts = [ShardSet(manifest, "images", "labels") for manifest in (train, heldout)]
    (images, labels), held_out = ((part.all("images"), part.all("labels")) for part in parts)
    classifier = train_classifier(images, labels, seed=settings.seed, steps=settings.judge_steps)
    accuracy = {
        "train_accuracy": classifier_accuracy(classifier, images, labels),
        "held_out_accuracy": classifier_accuracy(classifier, *held_out),
    }
    save_classifier(classifier, output.with_suffix(""), **accuracy)
    parameters = sum(parameter.numel() for parameter in classifier.parameters())
    write_json(output, {**classifier.config, **accuracy, "parameters": parameters, "steps": settings.judge_steps})


def open_extractor(settings: Evaluation, classifier: Path | None) -> Extractor:
    """The study's extractor: the digit classifier described in `classifier`, or Inception of `evaluation.weights`."""
    if settings.extractor == "digits":
        if classifier is None:
            raise UserError("evaluation.extractor is digits: the digit classifier is needed (--judge)")
        return load_extractor("digits", classifier.with_suffix(""))
    if settings.weights is None:
        raise UserError("evaluation.extractor is inception: evaluation.weights must name the file of its weights")
    return load_extractor(settings.extractor, settings.weights)


def write_reference(
    settings: Evaluation, classifier: Path | None, train: Path, heldout: Path | None, output: Path
) -> None:
    """Statistics and features of the reference images: the ADM batch of the study, or its train images.

    With train images as reference, the features of the `heldout` ones are kept beside.
    """
    extractor = open_extractor(settings, classifier)
    folder = output.parent / "features" / "reference"
    images = "train images" if settings.reference is None else None
    statistics = reference_statistics(settings.reference or train, extractor, folder, images)
    if settings.reference is None and heldout is not None:
        store = extract_features(open_images(heldout), extractor, folder.with_name("heldout") / "features.json")
        statistics.held_out = store.column("pool").tensor()
    statistics.save(output)


def evaluate_samples(
    settings: Evaluation,
    classifier: Path | None,
    reference: Path,
    samples: Path,
    output: Path,
    facts: dict[str, str | int],
    *,
    real: bool = False,
) -> None:
    """Metrics of a set of samples (its manifest); `facts` (run, arm, seed, step, sampler) lead every row.

    `real`: the samples are the held-out images themselves, which are not compared with themselves.
    The features stay in `features/` beside the reference, so another bootstrap or k needs no second pass.
    """
    extractor = open_extractor(settings, classifier)
    work = reference.parent / "features" / "-".join(str(fact) for fact in facts.values()) / "features.json"
    statistics = ReferenceStatistics.load(reference)
    table = metrics_table(
        extract_features(open_images(samples), extractor, work),
        replace(statistics, held_out=None) if real else statistics,
        labels=torch.from_numpy(ShardSet(samples, "labels").all("labels")) if extractor.name == "digits" else None,
        neighbours=settings.neighbours,
        bootstrap=settings.bootstrap,
        seed=settings.seed,
    )
    write_table(table, {**facts, "extractor": extractor.name}, output)


def evaluate_real_images(
    settings: Evaluation, classifier: Path | None, reference: Path, heldout: Path, output: Path
) -> None:
    """The real-vs-real baseline: the metrics of the held-out images, as if they were samples.

    One more row, fid_halves, is FID between halves of the reference images.
    """
    evaluate_samples(settings, classifier, reference, heldout, output, {"sampler": "real"}, real=True)
    halves = real_baseline([ReferenceStatistics.load(reference).features], seed=settings.seed)
    row = {"sampler": "real", "extractor": settings.extractor, "metric": "fid_halves", **halves._asdict()}
    row |= {"value": row.pop("mean"), "reference": f"the other {halves.images:,}"}
    row |= {"note": "mean, lowest and highest of 10 splits, not an interval"}
    write_table(pd.concat([pd.read_csv(output), pd.DataFrame([row])]), {}, output)


def evaluate_any(
    samples: Path, reference: Path, extractor: str, weights: Path, output: Path, features: Path | None, bootstrap: int
) -> None:
    """Metrics of any images with any others as reference; `features` keeps the features for another call."""
    images = open_images(samples)  # first: a mistake shows before the reference has been worked through
    network = load_extractor(extractor, weights)
    with tempfile.TemporaryDirectory() as scratch:
        work = features or Path(scratch)
        statistics = reference_statistics(reference, network, work / "reference")
        store = extract_features(images, network, work / "samples" / "features.json")
        table = metrics_table(store, statistics, bootstrap=bootstrap)
    write_table(table, {"extractor": network.name}, output)
    for row in table.to_dict("records"):
        log.info(f"{row['metric']}: {row['value']:.6g} [{row['low']:.6g}, {row['high']:.6g}] {row['note']}")


def write_table(table: pd.DataFrame, facts: dict, output: Path) -> None:
    """CSV with `facts` as leading columns."""
    for place, (name, value) in enumerate(facts.items()):
        table.insert(place, name, value)
    write_csv(output, table.replace({None: np.nan}))
