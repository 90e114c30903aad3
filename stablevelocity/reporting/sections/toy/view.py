"""Facts for the text about the toy experiment."""

from typing import Any

from stablevelocity.reporting.results import Results
from stablevelocity.reporting.sections.toy.protocol import departures


def view(results: Results) -> dict[str, Any]:
    toy: Any = results.study.toy
    return {"departures": departures(toy)}
