"""Small data to train on, and a finished run."""

from pathlib import Path

import pytest
from forks import spawn
from tiny_run import tiny_run
from tiny_training import train_whole, write_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(scope="session")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed. Read only."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert spawn(train_whole, tiny_run(), data, folder) == 0
    return folder
