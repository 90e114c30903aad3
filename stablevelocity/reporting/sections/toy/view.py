"""What the text about the toy experiment shows."""

from typing import Any

from stablevelocity.reporting.format import interval, number, plain, rough, signed
from stablevelocity.reporting.names import OBJECTIVES
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.toy.protocol import departures
from stablevelocity.reporting.text_table import text_table


def view(results: Results) -> dict[str, Any]:
    toy: Any = results.study.toy
    error = [
        ("Objective", "name", str),
        ("t", "t", plain),
        ("Error", "error", number),
        ("± sd", "error_sd", rough),
        ("95 % over seeds", "error_low error_high", interval),
        ("minus CFM", "change_from_cfm", signed),
        ("95 % paired", "change_from_cfm_low change_from_cfm_high", interval),
        ("minus STF", "change_from_stf", signed),
        ("95 % paired", "change_from_stf_low change_from_stf_high", interval),
        ("Seeds", "seeds", plain),
    ]
    variance = [
        ("Objective", "name", str),
        ("t", "t", plain),
        ("Target variance", "target_variance", number),
        ("of CFM's", "target_variance_ratio", rough),
        ("Gradient variance", "gradient_variance", number),
        ("of CFM's", "gradient_variance_ratio", rough),
    ]
    title = "Squared error to the exact velocity at the last update"
    return {
        "departures": departures(toy),
        "error": text_table(title, _named(results.table("toy_error")), error),
        "variance": text_table("Variances by time", _named(results.table("toy_variance")), variance, folded=True),
    }


def _named(table: DataFrame) -> DataFrame:
    return table.assign(name=table["objective"].map(OBJECTIVES)).sort_values(["t", "objective"])
