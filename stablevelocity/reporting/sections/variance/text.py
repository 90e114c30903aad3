"""What the report says about the variance curves."""

from stablevelocity.reporting.blocks import Block, Figure, Prose, Table
from stablevelocity.reporting.describe import interval, number
from stablevelocity.reporting.page import Context
from stablevelocity.reporting.published import published_table
from stablevelocity.reporting.sections.variance.tables import SHOWN_TIMES, variance_column


def text(context: Context) -> list[Block]:
    variance = context.study.variance
    table = context.table("variance")
    assert table is not None
    blocks: list[Block] = [
        Prose(
            "V(t) is the variance of the training target: how far the conditional velocity of one sample lies from the "
            "mean velocity at the same point and time. Where it is near zero, a noised sample has one possible "
            "origin; where it is large, many. The split point is the last time before the curve's peak at which "
            "V is 1 % of that peak."
        ),
        Prose(
            "The estimator takes its own points as the whole data law (the empirical law). For a finite data set that "
            "is all there is, and the curve belongs to the set. For the mixtures the exact law is known and "
            "drawn beside it: near t = 0 a finite set shows almost no variance where the law itself has much."
        ),
        Figure(
            "figure1",
            "Figure 1. Variance of the target over time, over the square root of the dimension (symmetric log axis). "
            "Bands: 15 to 85 % of the samples. Right: split points with 95 % resampling intervals.",
            alt="Curves of target variance against time for each data set, and a chart of their split points.",
            how=f"{variance.gmm_samples:,} samples per mixture, seed {variance.seed}; linear path. "
            "Latents are the posterior's means; training samples the posterior.",
        ),
    ]
    rows = []
    for row in table.to_dict("records"):
        rows.append(
            [
                row["source"],
                row["law"],
                f"{row['dimension']:,}",
                number(row["split_point"]),
                interval(row["split_low"], row["split_high"]),
                number(row["rise"], 2),
                *(number(row[variance_column(t)]) for t in SHOWN_TIMES),
                f"{row['samples']:,}",
            ]
        )
    times = [f"V at t = {t:g}" for t in SHOWN_TIMES]
    blocks.append(
        Table(
            "Split points and variance, measured",
            ["Source", "Law", "d", "Split point", "95 % interval", "V/√d passes 0.1 at t", *times, "Samples"],
            rows,
            text_columns=2,
            how=f"Seed {variance.seed}; linear path; no network involved. "
            "0 as split point: V never falls to 1 % of its peak. A dash at V/√d: the curve starts above 0.1.",
        )
    )
    name = "figure1_variance_regimes.csv"
    how = f"config/published/{name}; read off the published plot by eye, +-0.03 in t."
    blocks.append(published_table(context.published(name), "Figure 1 of the paper", how))
    if context.has_figure("figure1_references"):
        counts = ", ".join(f"{count:,}" for count in variance.reference_counts)
        blocks.append(
            Figure(
                "figure1_references",
                "Figure 1, continued. The same curve from ever larger sets of references, and the exact one. What is "
                "missing at small t is the finite set's doing.",
                alt="Variance against time for several numbers of references, approaching the exact curve.",
                how=f"Sets of {counts} points, seed {variance.seed}.",
            )
        )
    return blocks
