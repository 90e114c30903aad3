"""A study file, read and checked as one: `load_study("config/digits.yaml")`."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stablevelocity.errors import UserError
from stablevelocity.study.constraints import CONSTRAINTS
from stablevelocity.study.reading import first_problem, read_yaml
from stablevelocity.study.study import Study


def load_study(path: Path | str) -> Study:
    """Read a study file (YAML or JSON).

    Raises UserError, one line that names the key, when the file is not a valid study.
    """
    path = Path(path)
    return parse_study(read_yaml(path), str(path))


def parse_study(content: Any, source: str = "study") -> Study:
    """Check the content of a study file; `source` names it in the error."""
    if not isinstance(content, dict):
        raise UserError(f"{source}: expected a mapping of sections, given {type(content).__name__}")
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{source}: {first_problem(error, Study)}") from None
    for key, problem in (found for constraint in CONSTRAINTS for found in constraint(study)):
        raise UserError(f"{source}: {key}: {problem}")
    return study
