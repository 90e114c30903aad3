"""What the report says about the things everything was measured with."""

from stablevelocity.reporting.blocks import Block, Prose, Table
from stablevelocity.reporting.describe import interval, number
from stablevelocity.reporting.page import Context


def text(context: Context) -> list[Block]:
    table = context.table("conditions")
    assert table is not None
    rows = [
        [
            row["quantity"],
            str(row["how"]),
            f"{int(row['value']):,}"
            if float(row["value"]).is_integer() and row["value"] >= 10
            else number(row["value"]),
            interval(row["low"], row["high"]),
            row["unit"] if isinstance(row["unit"], str) else "",
        ]
        for row in table.to_dict("records")
    ]
    return [
        Prose(
            "The numbers above are bounded by these. The autoencoder limits what any sample can look like; real "
            "held-out images scored against the same reference are the floor that no generator can be expected "
            "to beat with as many images."
        ),
        Table(
            "Conditions, measured",
            ["Quantity", "How", "Value", "95 %", "Unit"],
            rows,
            how="Intervals: bootstrap over images.",
            text_columns=2,
        ),
    ]


def _value(value: float) -> str:
    """Counts in full, measurements to three digits."""
    return f"{int(value):,}" if value.is_integer() and value >= 10 else number(value)
