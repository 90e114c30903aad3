"""Shapes in annotations are checked at run time in every test (jaxtyping's import hook with beartype)."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

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


def pytest_collection_modifyitems(items):
    """The workflow's file, which takes longest, first: several processes get whole files, in this order."""
    items.sort(key=lambda item: item.get_closest_marker("workflow") is None)
