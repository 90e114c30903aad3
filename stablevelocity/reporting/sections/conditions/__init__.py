"""What everything was measured with: data, autoencoder, encoder, judge, and the floor between real sets."""

from stablevelocity.reporting.products import Product, Section
from stablevelocity.study import Study


def _conditions(study: Study) -> list[str]:
    files = ["data/images/train.json", "data/images/heldout.json", "data/latents/train.json", "metrics/floor.csv"]
    files.append("data/autoencoder.json")
    if any(arm.alignment or arm.class_token for arm in study.arms.values()):
        files.append("data/encoder.json")
    if study.evaluation.extractor == "digits":
        files.append("metrics/judge.json")
    return files


SECTION = Section(
    name="conditions",
    title="What everything was measured with",
    text="sections.conditions.text:text",
    tables=(Product("conditions", "sections.conditions.tables:conditions", _conditions, keys=("quantity",)),),
)
