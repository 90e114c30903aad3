"""What everything was measured with: data, autoencoder, encoder, digit classifier, and the real-vs-real baseline."""

from stablevelocity.reporting.spec import LAYOUT, Product, Section
from stablevelocity.study import Study


def conditions(study: Study) -> list[str]:
    files = [LAYOUT.image_manifest("train"), LAYOUT.image_manifest("heldout"), LAYOUT.latents, LAYOUT.real_baseline]
    files.append(LAYOUT.autoencoder)
    if any(arm.alignment or arm.class_token for arm in study.arms.values()):
        files.append(LAYOUT.encoder)
    if study.auto():
        files.append(LAYOUT.variance_split_point("latents"))
    if study.evaluation.extractor == "digits":
        files.append(LAYOUT.classifier)
    return files


SECTION = Section(
    name="conditions",
    title="What everything was measured with",
    settings=lambda study: [study.images, study.autoencoder, study.encoder, study.evaluation, *study.auto()],
    tables=(Product("conditions", conditions, keys=("quantity",)),),
    has_claims=False,
    has_view=False,
)
