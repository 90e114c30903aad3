"""Finished synthetic studies, made once for all test processes."""

import multiprocessing
from pathlib import Path

import pytest
from filelock import FileLock

from stablevelocity.reporting import registry
from stablevelocity.reporting.make import make_claims, make_figure, make_table
from stablevelocity.reporting.page import make_page
from stablevelocity.reporting.paper_rows import make_paper_tables
from stablevelocity.study import Study

from . import synthetic


def finish(study: Study, results: Path) -> None:
    """Tables, figures, claims and page of `study`, as the workflow makes them."""
    for name in registry.tables(study):
        make_table(study, results, name, results / f"tables/{name}.csv")
    synthetic.leave_records(study, results)
    # By two, since another process of the tests may wait for this one.
    with multiprocessing.get_context("fork").Pool(2) as pool:
        figures = [(study, results, name, results / f"figures/{name}.pdf") for name in registry.figures(study)]
        pool.starmap(make_figure, figures, chunksize=1)
    make_paper_tables(study, results)
    make_claims(study, results, results / "claims.json")
    make_page(study, results, results / "report.html")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / "reporting"
    folder.mkdir(exist_ok=True)
    return folder


def _finished(study: Study, shared: Path) -> Path:
    results = shared / study.name
    with FileLock(shared / f"{study.name}.lock"):
        if not (results / "report.html").exists():
            finish(study, synthetic.make(study, results))
    return results


@pytest.fixture(scope="session")
def digits(shared: Path) -> Path:
    """A finished study with six arms, two seeds, three samplers and the toy. Read only."""
    return _finished(synthetic.digits(), shared)


@pytest.fixture(scope="session")
def minimal(shared: Path) -> Path:
    """The least that a study can be, finished. Read only."""
    return _finished(synthetic.minimal(), shared)
