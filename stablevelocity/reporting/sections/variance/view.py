"""What the text about the variance curves shows."""

from typing import Any

from stablevelocity.reporting.format import interval, number, rough, whole
from stablevelocity.reporting.results import Results
from stablevelocity.reporting.sections.variance import PAPER
from stablevelocity.reporting.sections.variance.tables import SHOWN_TIMES, variance_column
from stablevelocity.reporting.text_table import published_table, text_table


def view(results: Results) -> dict[str, Any]:
    columns = [
        ("Source", "source", str),
        ("Distribution", "law", str),
        ("d", "dimension", whole),
        ("Split point", "split_point", number),
        ("95 % interval", "split_low split_high", interval),
        ("V/√d passes 0.1 at t", "rise", rough),
        *((f"V at t = {t:g}", variance_column(t), number) for t in SHOWN_TIMES),
        ("Samples", "samples", whole),
    ]
    return {
        "splits": text_table("Split points and variance", results.table("variance"), columns),
        "paper": published_table("Figure 1 of the paper", results.published(*PAPER)),
    }
