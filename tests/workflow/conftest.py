"""The smoke study, finished once for all tests that look at a finished study."""

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from project import Workflow, copy_project

from stablevelocity.cli import warm_start


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the finished study, to be copied: processes of pytest-xdist make it once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smoke"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            making = folder.with_name("smoke-making")
            shutil.rmtree(making, ignore_errors=True)
            copy_project(making)
            done = Workflow(making).snakemake("all", "--configfile", "config/smoke.yaml")
            assert done.returncode == 0, done.stdout + done.stderr
            making.rename(folder)
    return folder


@pytest.fixture
def finished(smoke: Path, tmp_path: Path) -> Workflow:
    """A finished study of one's own."""
    return Workflow(Path(shutil.copytree(smoke, tmp_path / "project", symlinks=True)))


@pytest.fixture(scope="session")
def warm_start_environment() -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        for name in warm_start.THREAD_VARIABLES:
            patch.setenv(name, "1")
        patch.setenv(warm_start.VARIABLE, "")
        warm_start.start_server()
        return {name: os.environ[name] for name in (*warm_start.THREAD_VARIABLES, warm_start.VARIABLE)}


@pytest.fixture
def server(warm_start_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What commands of unedited code start from, and jobs of Snakemake, so that each costs a tenth of a second."""
    for name, value in warm_start_environment.items():
        monkeypatch.setenv(name, value)
