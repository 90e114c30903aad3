"""StableVS on text-to-image and text-to-video pipelines: tables 4 and 5, the sweep of xi, panels."""

from collections.abc import Callable

from stablevelocity.reporting.spec import LAYOUT, Inputs, Product, Section
from stablevelocity.study import Study
from stablevelocity.study.pretrained_settings import VIDEO

TABLE4, TABLE5 = "table4_stablevs_text_to_image.csv", "table5_stablevs_text_to_video.csv"
XI = "ablation_xi_sampling.csv"


def families(study: Study) -> list[str]:
    return list(study.pretrained.families) if study.pretrained else []


def image_families(study: Study) -> list[str]:
    return [name for name in families(study) if name not in VIDEO]


def video_families(study: Study) -> list[str]:
    return [name for name in families(study) if name in VIDEO]


def metrics_of(names: Callable[[Study], list[str]]) -> Inputs:
    return lambda study: [LAYOUT.family_metrics(name) for name in names(study)]


ALL, IMAGES, VIDEOS = metrics_of(families), metrics_of(image_families), metrics_of(video_families)


def _pairs(study: Study) -> list[str]:
    return [LAYOUT.family_pairs(name) for name in families(study)]


def _errors(study: Study) -> list[str]:
    return [LAYOUT.scheduler_errors] if study.pretrained else []


def _tiny(study: Study) -> list[str]:
    return [LAYOUT.tiny_model(name) for name in study.pretrained.tiny] if study.pretrained else []


def _detector(study: Study) -> list[str]:
    return [LAYOUT.detector_accuracy] if _tiny(study) else []


def _previews(study: Study) -> list[str]:
    return [LAYOUT.video_comparison(name, suffix) for name in video_families(study) for suffix in ("gif", "mp4")]


SECTION = Section(
    name="pretrained",
    title="StableVS on text-to-image and text-to-video pipelines",
    settings=lambda study: [study.pretrained],
    tables=(
        Product("table4", IMAGES, keys=("family", "arm")),
        Product("table5", VIDEOS, keys=("family", "arm")),
        Product("pretrained_pairs", _pairs, keys=("family", "arm", "against", "prompt")),
        Product("pretrained_xi", ALL, keys=("family", "kind", "xi")),
        Product("scheduler_errors", _errors, keys=("dimension", "solver", "arm")),
        Product("tiny_models", _tiny, keys=("family",)),
        Product("pretrained_judge", _detector, keys=("scenes",)),
    ),
    figures=(
        Product("pretrained_xi", ALL, (XI,)),
        Product("pretrained_images", IMAGES),
        Product("pretrained_videos", VIDEOS),
    ),
    files=_previews,
)
