"""A study file, read and checked as one: `load_study("config/digits.yaml")`."""

import csv
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stablevelocity.errors import UserError
from stablevelocity.study.constraints import CONSTRAINTS
from stablevelocity.study.layout import Layout
from stablevelocity.study.reading import first_problem, read_yaml
from stablevelocity.study.study import Study


def load_study(path: Path | str) -> Study:
    """Read a study file (YAML or JSON); of results/<study>/study.json with the numbers that its curves give, if known.

    Raises UserError, one line that names the key, when the file is not a valid study.
    """
    path = Path(path)
    study = parse_study(read_yaml(path), str(path))
    return resolve(study, path.parent) if path.name == Layout().study else study


def parse_study(content: Any, source: str = "study") -> Study:
    """Check the content of a study file; `source` names it in the error."""
    if not isinstance(content, dict):
        raise UserError(f"{source}: expected a mapping of sections, given {type(content).__name__}")
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{source}: {first_problem(error, Study)}") from None
    for constraint in CONSTRAINTS:
        for key, problem in constraint(study):
            raise UserError(f"{source}: {key}: {problem}")
    return study


def resolve(study: Study, results: Path | str) -> Study:
    """The study with the split point of its latents in place of each "auto"; as it is while that is not known.

    To three digits, far finer than its interval: so the last bits of another machine's curve retrain nothing.
    """
    file = Path(results) / Layout().variance_split_point("latents")
    if not study.auto() or not file.exists():
        return study
    with open(file, newline="") as text:
        rows = [row for row in csv.DictReader(text) if row.get("law") == "empirical"]
    try:
        value, low, high = (round(float(rows[0][name]), 3) for name in ("xi", "low", "high"))
        if not 0 <= low <= value <= high < 1:
            raise ValueError
    except (IndexError, KeyError, ValueError, TypeError):
        raise UserError(f"{file}: is damaged; delete it to make it again") from None
    arms = {}
    for name, arm in study.arms.items():
        auto = {part: section for part, section in arm.by_split_point().items() if section.is_auto}
        if value == 0 and "alignment" in auto:
            raise UserError(f"arms.{name}.alignment.xi: auto, but the curve in {file} has no regime of low variance")
        arms[name] = arm.model_copy(update={part: auto[part].resolved(value, low, high) for part in auto})
    return study.model_copy(update={"arms": arms})
