"""What the report says about the toy experiment."""

from stablevelocity.reporting.blocks import Block, Figure, Prose, Table
from stablevelocity.reporting.describe import count_text, interval, number, signed
from stablevelocity.reporting.page import Context
from stablevelocity.reporting.sections.toy.protocol import departures

NAMES = {"cfm": "CFM", "stf": "STF", "stablevm": "StableVM"}


def text(context: Context) -> list[Block]:
    toy = context.study.toy
    assert toy is not None
    seeds = count_text(len(toy.seeds), "seed")
    how = (
        f"Runs: each objective, {seeds} ({', '.join(str(seed) for seed in toy.seeds)}); {toy.updates:,} updates "
        f"of batch {toy.batch}, {toy.references:,} references; EMA weights; {toy.points:,} evaluation points."
    )
    found = departures(toy)
    short = f" This study does not run the full protocol: {'; '.join(found)}." if found else ""
    return [
        Prose(
            "A network of 14,634 parameters learns the velocity of a 10-dimensional Gaussian mixture from CFM, STF or "
            "StableVM targets. The mixture's velocity is known in closed form, so the error is to the truth itself and "
            "not to an estimate from samples. All objectives share a seed's weights and draws: differences are paired."
            + short
        ),
        Figure(
            "toy_error",
            "Squared error of the EMA network to the exact velocity. Lines: mean over seeds; bands: lowest to "
            "highest seed. The objectives share each seed's draws, so bands that overlap can still differ in "
            "every seed: see the paired differences below.",
            alt="Error against updates for CFM, STF and StableVM at four times.",
            how=how,
        ),
        _error_table(context, how),
        Figure(
            "toy_variance",
            "Variance of the target and of the gradient of the loss, by time. The gradient is taken over batches "
            "at weights that are the same for all objectives; a batch's samples share their references, so its "
            "variance need not fall as the target's does.",
            alt="Two charts of variance against time for CFM, STF and StableVM.",
            how=how,
        ),
        _variance_table(context, how),
        Figure(
            "toy_cost",
            "Time of one training step by the number of references.",
            alt="Bars of time per step, in parts, for growing numbers of references.",
            how="Median wall-clock time on this machine, one run at a time, beside whatever else ran; this network is "
            "tiny, so the target's share is far above that of an image model.",
        ),
    ]


def _error_table(context: Context, how: str) -> Table:
    table = context.table("toy_error")
    assert table is not None
    rows = []
    for row in table.sort_values(["t", "objective"]).to_dict("records"):
        rows.append(
            [
                NAMES[row["objective"]],
                f"{row['t']:g}",
                number(row["error"]),
                number(row["error_sd"], 2),
                interval(row["error_low"], row["error_high"]),
                signed(row["change_from_cfm"]),
                interval(row["change_from_cfm_low"], row["change_from_cfm_high"]),
                signed(row["change_from_stf"]),
                interval(row["change_from_stf_low"], row["change_from_stf_high"]),
                str(row["seeds"]),
            ]
        )
    columns = [
        "Objective",
        "t",
        "Error",
        "± sd",
        "95 % over seeds",
        "minus CFM",
        "95 % paired",
        "minus STF",
        "95 % paired",
        "Seeds",
    ]
    return Table("Squared error to the exact velocity at the last update, measured", columns, rows, how=how)


def _variance_table(context: Context, how: str) -> Table:
    table = context.table("toy_variance")
    assert table is not None
    rows = [
        [
            NAMES[row["objective"]],
            f"{row['t']:g}",
            number(row["target_variance"]),
            number(row["target_variance_ratio"], 2),
            number(row["gradient_variance"]),
            number(row["gradient_variance_ratio"], 2),
        ]
        for row in table.sort_values(["t", "objective"]).to_dict("records")
    ]
    columns = ["Objective", "t", "Target variance", "of CFM's", "Gradient variance", "of CFM's"]
    return Table("Variances by time, measured", columns, rows, how=how, folded=True)
