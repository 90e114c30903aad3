"""StableVS on text-to-image and text-to-video pipelines: tables 4 and 5, the sweep of xi, panels."""

from stablevelocity.reporting.products import Inputs, Product, Section
from stablevelocity.study import Study
from stablevelocity.study.pretrained_settings import VIDEO

ERRORS = "pretrained/scheduler_errors.csv"
JUDGE = "pretrained/judge.json"
FRAMES = 5
"""Of a video, at most, in its figure."""


def metrics_file(family: str) -> str:
    return f"pretrained/{family}/metrics.csv"


def training_file(family: str) -> str:
    return f"pretrained/{family}/model/training.json"


def comparison_file(family: str) -> str:
    """The animated preview; the mp4 of the same videos lies beside it."""
    return f"pretrained/{family}/comparison.gif"


def families(study: Study, *, video: bool | None = None) -> list[str]:
    """The study's families: images, videos, or both."""
    if study.pretrained is None:
        return []
    return [name for name in study.pretrained.families if video is None or (name in VIDEO) == video]


def _metrics(video: bool | None) -> Inputs:
    return lambda study: [metrics_file(name) for name in families(study, video=video)]


def _errors(study: Study) -> list[str]:
    return [ERRORS] if study.pretrained else []


def _judge(study: Study) -> list[str]:
    return [JUDGE] if study.pretrained and study.pretrained.tiny else []


def _training(study: Study) -> list[str]:
    return [training_file(name) for name in study.pretrained.tiny] if study.pretrained else []


def _files(study: Study) -> list[str]:
    previews = [comparison_file(name) for name in families(study, video=True)]
    return [name for gif in previews for name in (gif, gif.replace(".gif", ".mp4"))]


SECTION = Section(
    name="pretrained",
    title="StableVS on text-to-image and text-to-video pipelines",
    text="sections.pretrained.text:text",
    claims="sections.pretrained.claims:claims",
    files=_files,
    tables=(
        Product(
            "table4",
            "sections.pretrained.tables:images",
            _metrics(False),
            published=("table4_stablevs_text_to_image.csv",),
            keys=("family", "arm"),
        ),
        Product(
            "table5",
            "sections.pretrained.tables:videos",
            _metrics(True),
            published=("table5_stablevs_text_to_video.csv",),
            keys=("family", "arm"),
        ),
        Product(
            "pretrained_xi",
            "sections.pretrained.tables:sweep",
            _metrics(None),
            published=("ablation_xi_sampling.csv",),
            keys=("family", "kind", "xi"),
        ),
        Product(
            "scheduler_errors",
            "sections.pretrained.tables:scheduler_errors",
            _errors,
            keys=("dimension", "solver", "arm"),
        ),
        Product("tiny_models", "sections.pretrained.tables:tiny_models", _training, keys=("family",)),
        Product("pretrained_judge", "sections.pretrained.tables:judge", _judge, keys=("scenes",)),
    ),
    figures=(
        Product(
            "pretrained_xi",
            "sections.pretrained.figures:sweep",
            _metrics(None),
            published=("ablation_xi_sampling.csv",),
        ),
        Product("pretrained_images", "sections.pretrained.figures:images", _metrics(False)),
        Product("pretrained_videos", "sections.pretrained.figures:videos", _metrics(True)),
    ),
)
