"""Each input of the tables of bad inputs ends in the line that names what is wrong, before work starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from bad_inputs.case import Case, line_of
from bad_inputs.run import tables

# Here the package's annotations are checked as well (conftest.py), and would speak before the schedulers do.
WITHOUT_CHECKED_TYPES = ("schedulers",)
CASES = [
    pytest.param(case, id=f"{table}-{case.name}")
    for table, cases in tables().items()
    if table not in WITHOUT_CHECKED_TYPES
    for case in cases
]


@pytest.mark.parametrize("case", CASES)
def test_a_bad_input_ends_in_one_line(case: Case) -> None:
    line_of(case)


def test_so_do_those_of_the_schedulers() -> None:
    script = Path(__file__).with_name("run.py")
    done = subprocess.run([sys.executable, script, *WITHOUT_CHECKED_TYPES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_names_are_unique_in_their_table() -> None:
    for table, cases in tables().items():
        names = [case.name for case in cases]
        assert len(names) == len(set(names)), table
