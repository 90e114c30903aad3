"""What the text about the conditions shows."""

from typing import Any

from stablevelocity.reporting.format import interval, number, whole
from stablevelocity.reporting.results import Results
from stablevelocity.reporting.text_table import text_table


def view(results: Results) -> dict[str, Any]:
    columns = [
        ("Quantity", "quantity", str),
        ("How", "how", str),
        ("Value", "value", _value),
        ("95 %", "low high", interval),
        ("Unit", "unit", str),
    ]
    table = results.table("conditions")
    return {"conditions": text_table("Conditions", table.assign(unit=table["unit"].fillna("")), columns)}


def _value(value: float) -> str:
    """Counts in full, measurements to three digits."""
    return whole(value) if value >= 10 and float(value).is_integer() else number(value)
