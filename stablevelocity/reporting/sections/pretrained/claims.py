"""The paper's claims about StableVS on pretrained models, tested on this study's pictures."""

from stablevelocity.reporting.claims import Claim
from stablevelocity.reporting.results import Results, Series
from stablevelocity.reporting.verdicts import by_interval
from stablevelocity.study.pretrained_settings import SOLVERS


def claims(results: Results) -> list[Claim]:
    """For each family: StableVS against as many base steps, and against the base step on its own grid."""
    made = []
    for table in (results.table("table4"), results.table("table5")):
        for _, row in [] if table is None else table.iterrows():
            solver = SOLVERS[row["family"]][0]
            if row["arm"] == f"{solver}-stablevs":
                made.append(_against(row, "short"))
                if solver != "euler":
                    made.append(_against(row, "control"))
    return made


def _against(row: Series, other: str) -> Claim:
    value, low, high = (row[f"psnr_over_{other}{bound}"] for bound in ("", "_low", "_high"))
    how = {"family": row["family"], "solver": row["solver"], "steps": row["steps"], "pictures": row["pictures"]}
    name, verdict = f"stablevs-{row['family']}-{other}", by_interval(low, high, "above")
    return Claim(name, value, verdict, how, (low, high), {"row": row}, text=f"pretrained-{other}")
