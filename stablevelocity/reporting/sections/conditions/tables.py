"""Data, autoencoder, encoder, digit classifier and the metrics of real images, each with its number."""

import math
from typing import Any

import pandas as pd

from stablevelocity.reporting.describe import decoder_text
from stablevelocity.reporting.names import METRICS
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.spec import LAYOUT


def conditions(results: Results) -> DataFrame:
    """quantity, value, low, high, unit, how; quantities that a file does not hold are left out."""
    study = results.study
    rows = []

    def add(quantity: str, value: Any, unit: str, how: str, low: float = math.nan, high: float = math.nan) -> None:
        if value is not None:
            rows.append({"quantity": quantity, "value": value, "low": low, "high": high, "unit": unit, "how": how})

    for split, name in (("train", "Training images"), ("heldout", "Held-out images")):
        manifest = results.json(LAYOUT.image_manifest(split))
        add(name, manifest.get("count"), "images", f"{study.images.dataset}, {study.images.size} px")
    latents = results.json(LAYOUT.latents)
    add("Scale of the latents", latents.get("scale"), "factor", str(latents.get("identity", "")))
    if "mean" in latents.get("arrays", {}):
        shape = latents["arrays"]["mean"]["shape"]
        add("Latent dimension", math.prod(shape), "numbers", f"{'x'.join(map(str, shape))} per image")
    for key, section in study.auto().items():
        how = "split point of the latents' variance curve, by the empirical distribution"
        add(key, getattr(section, section.number), "time", how, *(section.interval or ()))
    autoencoder = results.json(LAYOUT.autoencoder)
    trained = f"trained here, {study.autoencoder.steps} steps, seed {study.autoencoder.seed}"
    how = f"{study.autoencoder.pretrained or trained}; decoder of all samples: {decoder_text(study)}"
    add("Autoencoder: held-out PSNR", autoencoder.get("psnr_held_out"), "dB", how)
    add("Autoencoder: training PSNR", autoencoder.get("psnr_train"), "dB", how)
    add("Autoencoder: parameters", autoencoder.get("parameters"), "parameters", how)
    if results.has(LAYOUT.encoder):
        encoder = results.json(LAYOUT.encoder)
        how = str(encoder.get("name", study.encoder.name))
        add("Encoder: held-out accuracy", encoder.get("held_out_accuracy"), "share", how)
        add("Encoder: accuracy of nearest neighbours", encoder.get("neighbour_accuracy"), "share", how)
        add("Encoder: tokens", encoder.get("tokens"), "tokens", f"{how}, width {encoder.get('width', '?')}")
    if results.has(LAYOUT.classifier):
        classifier = results.json(LAYOUT.classifier)
        how = f"digit classifier that gives the features, {study.evaluation.judge_steps} steps"
        add("Judge: held-out accuracy", classifier.get("held_out_accuracy"), "share", how)
    for row in results.csv(LAYOUT.real_baseline).to_dict("records"):
        whose = "images of the reference" if row["metric"] == "fid_halves" else "real held-out images"
        how = f"{row['images']:,} {whose} against {row['reference']}, features {row['extractor']}"
        how += f"; {row['note']}" if isinstance(row["note"], str) else ""
        name = METRICS.get(row["metric"], row["metric"])
        add(f"Real against real: {name}", row["value"], "", how, row["low"], row["high"])
    return pd.DataFrame(rows)
