"""Shapes in annotations are checked at run time in every test (jaxtyping's import hook with beartype)."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

TESTS = Path(__file__).parent

# Modules whose promises are about arrays; pydantic and typer modules read their annotations themselves.
install_import_hook(
    [
        "stablevelocity.interpolants",
        "stablevelocity.gmm",
        "stablevelocity.targets",
        "stablevelocity.reference_bank",
        "stablevelocity.alignment",
        "stablevelocity.variance",
        "stablevelocity.split_point",
        "stablevelocity.experiments.toy",
        "stablevelocity.models",
        "stablevelocity.sampling",
        "stablevelocity.schedulers",
        "stablevelocity.evaluation",
    ],
    "beartype.beartype",
)


# Folders of the files that take longest. With one of `benchmarks` before those of `workflow`, no two processes wait for
# the smoke study together.
FIRST = ["benchmarks", "workflow", "cluster", "training", "reporting", "pretrained", "models"]


def pytest_collection_modifyitems(items):
    """The longest first: several processes get whole files, in this order, and shall end together."""

    def place(item) -> int:
        folder = item.path.relative_to(TESTS).parts[0]
        return FIRST.index(folder) if folder in FIRST else len(FIRST)

    items.sort(key=place)
