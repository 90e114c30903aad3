"""Published values as a table of the page, word for word as config/published holds them."""

import pandas as pd

from stablevelocity.reporting.blocks import Table
from stablevelocity.reporting.describe import METRICS, number
from stablevelocity.reporting.source import Frame

NAMES = {
    "parameters_millions": "Parameters, M",
    "sampling_labels": "Labels",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "xi": "xi",
    "geneval_overall": "GenEval",
    "t2v_compbench_consistency": "T2V-CompBench consistency",
    **METRICS,
}


def published_table(frame: Frame, title: str, how: str) -> Table:
    """`frame` of config/published set apart as published; a value that is not known stays a dash."""
    columns = [NAMES.get(str(column), str(column).replace("_", " ").capitalize()) for column in frame.columns]
    rows = [
        [value if isinstance(value, str) else number(value, 4) for value in row]
        for row in frame.itertuples(index=False)
    ]
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]
    how = f"{how} A dash is a value that is not known. Nothing here was measured."
    return Table(title, columns, rows, how=how, text_columns=max(1, numeric.index(True)), published=True, folded=True)
