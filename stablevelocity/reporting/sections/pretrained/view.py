"""Facts for the text about pretrained pipelines."""

from typing import Any

import pandas as pd

from stablevelocity.reporting.names import FAMILIES, SOLVERS
from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.pretrained import families, video_families
from stablevelocity.study.pretrained_settings import SOLVERS as BASES

FAITHFUL_PSNR = 25
"""Of an autoencoder on training scenes, in dB: below it colours and small strokes are lost."""
EQUAL = "equal by construction, tested"


def view(results: Results) -> dict[str, Any]:
    study, scores, drawn = results.study, results.table("pretrained_judge"), results.table("pretrained_pairs")
    settings: Any = study.pretrained
    # Families whose control arm makes the very pictures of StableVS and is not drawn in the sweep.
    same = [name for name in families(study) if settings.control_equals_stablevs(name)]
    drawn = drawn[(drawn["arm"] == "euler-stablevs") & (drawn["against"] == "control")]
    compared = drawn.groupby("family", sort=False)["psnr"].mean().reset_index().to_dict("records") if same else []
    return {
        "settings": settings,
        "names": FAMILIES,
        "mains": ", ".join(f"{FAMILIES[name]} {SOLVERS[BASES[name][0]]}" for name in families(study)),
        "videos": video_families(study),
        "scores": [] if scores is None else scores.to_dict("records"),
        "sweep": _sweep(results.table("pretrained_xi"), same),
        "equal": EQUAL,
        "compared": compared,
        "faded": _faded(results.table("tiny_models")),
    }


def _faded(models: DataFrame) -> str:
    """Which tiny models' colours cannot be trusted, and why."""
    if models is None or not (models["autoencoder_psnr"] < FAITHFUL_PSNR).any():
        return ""
    poor = models[models["autoencoder_psnr"] < FAITHFUL_PSNR].to_dict("records")
    told = ", ".join(f"{FAMILIES[row['family']]} {row['autoencoder_psnr']:.1f} dB" for row in poor)
    return f" Colours of a model whose autoencoder is poor are not the prompt's, a red digit comes out olive: {told}."


def _sweep(table: DataFrame, same: list[str]) -> DataFrame:
    """Beside StableVS one control at each xi: the one that was drawn, else StableVS itself."""
    equal = table[(table["kind"] == "stablevs") & table["family"].isin(same)].assign(kind=f"control ({EQUAL})")
    table = pd.concat([table, equal])
    key = ["family", "xi", "beside"]
    return table.assign(beside=table["kind"] != "stablevs").drop_duplicates(key).sort_values(key)
