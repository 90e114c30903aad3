"""Tests marked `slurm` say why they are skipped; the helpers of the training tests are importable here."""

import sys
from pathlib import Path

import pytest
from box import why_not

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = why_not()
    for item in items:
        if reason and item.get_closest_marker("slurm"):
            item.add_marker(pytest.mark.skip(reason=reason))
