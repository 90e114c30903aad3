"""Data, autoencoder, encoder, judge and the floor between real sets, each with its number."""

import math
from typing import Any

import pandas as pd

from stablevelocity.reporting.describe import METRICS, decoder_text
from stablevelocity.reporting.source import Frame, Source


def conditions(source: Source) -> Frame:
    """quantity, value, low, high, unit, how; quantities that a file does not hold are left out."""
    study = source.study
    rows = []

    def add(quantity: str, value: Any, unit: str, how: str, low: float = math.nan, high: float = math.nan) -> None:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            rows.append({"quantity": quantity, "value": value, "low": low, "high": high, "unit": unit, "how": how})

    for split, name in (("train", "Training images"), ("heldout", "Held-out images")):
        manifest = source.json(f"data/images/{split}.json")
        add(name, manifest.get("count"), "images", f"{study.images.dataset}, {study.images.size} px")
    latents = source.json("data/latents/train.json")
    add("Scale of the latents", latents.get("scale"), "factor", str(latents.get("identity", "")))
    for name, facts in latents.get("arrays", {}).items():
        if name == "mean":
            shape = "x".join(str(side) for side in facts["shape"])
            add("Latent dimension", math.prod(facts["shape"]), "numbers", f"{shape} per image")
    autoencoder = source.json("data/autoencoder.json")
    trained = f"trained here, {study.autoencoder.steps} steps, seed {study.autoencoder.seed}"
    made = f"{study.autoencoder.pretrained or trained}; decoder of all samples: {decoder_text(study)}"
    add("Autoencoder: held-out PSNR", autoencoder.get("psnr_held_out"), "dB", made)
    add("Autoencoder: training PSNR", autoencoder.get("psnr_train"), "dB", made)
    add("Autoencoder: parameters", autoencoder.get("parameters"), "parameters", made)
    if source.has("data/encoder.json"):
        encoder = source.json("data/encoder.json")
        made = str(encoder.get("name", study.encoder.name))
        add("Encoder: held-out accuracy", encoder.get("held_out_accuracy"), "share", made)
        add("Encoder: tokens", encoder.get("tokens"), "tokens", f"{made}, width {encoder.get('width', '?')}")
    if source.has("metrics/judge.json"):
        judge = source.json("metrics/judge.json")
        made = f"digit classifier that gives the features, {study.evaluation.judge_steps} steps"
        add("Judge: held-out accuracy", judge.get("held_out_accuracy"), "share", made)
    for row in source.csv("metrics/floor.csv").to_dict("records"):
        whose = "images of the reference" if row["metric"] == "fid_halves" else "real held-out images"
        made = f"{row['images']:,} {whose} against {row['reference']}, features {row['extractor']}"
        made += f"; {row['note']}" if isinstance(row["note"], str) else ""
        name = METRICS.get(row["metric"], row["metric"])
        add(f"Real against real: {name}", row["value"], "", made, row["low"], row["high"])
    return pd.DataFrame(rows)
