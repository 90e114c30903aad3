"""Each input of the tables of bad inputs ends in the line that names what is wrong, before work starts."""

import pytest

from bad_inputs.case import Case, line_of
from bad_inputs.run import tables

CASES = [pytest.param(case, id=f"{table}-{case.name}") for table, cases in tables().items() for case in cases]


@pytest.mark.parametrize("case", CASES)
def test_a_bad_input_ends_in_one_line(case: Case) -> None:
    line_of(case)


def test_names_are_unique_in_their_table() -> None:
    for table, cases in tables().items():
        names = [case.name for case in cases]
        assert len(names) == len(set(names)), table
