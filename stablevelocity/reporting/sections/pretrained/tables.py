"""Tables 4 and 5 as measured, the sweep of xi, and the schedulers' errors on known velocities."""

from typing import Any

import pandas as pd

from stablevelocity.reporting.results import DataFrame, Results
from stablevelocity.reporting.sections.pretrained import families, image_families, video_families
from stablevelocity.reporting.spec import LAYOUT


def table4(results: Results) -> DataFrame:
    """A row per image family and arm, without the sweep's other values of xi."""
    frame = _arms(results, image_families(results.study))
    return frame[~frame["arm"].str.contains("-xi")]


def table5(results: Results) -> DataFrame:
    """A row per video family and arm, without the sweep's other values of xi."""
    frame = _arms(results, video_families(results.study))
    return frame[~frame["arm"].str.contains("-xi")]


def pretrained_xi(results: Results) -> DataFrame:
    """The thinned arms of each family's main base solver at every value of xi."""
    frame = _arms(results, families(results.study))
    main = frame["solver"] == frame.groupby("family")["solver"].transform("first")
    return frame[main & frame["xi"].notna()].sort_values(["family", "kind", "xi"])


def _arms(results: Results, names: list[str]) -> DataFrame:
    """All arms of these families; solver, kind and xi are read from the name of the arm: euler-control-xi0.7."""
    settings: Any = results.study.pretrained
    frame = pd.concat([results.csv(LAYOUT.family_metrics(name)).assign(family=name) for name in names])
    arm = frame["arm"].str.extract(r"^(?P<solver>[a-z]+)-(?P<kind>[a-z]+)(?:-xi(?P<xi>[0-9.e-]+))?$")
    arm["xi"] = arm["xi"].astype(float).fillna(settings.xi).where(arm["kind"].isin(["stablevs", "control"]))
    frame = pd.concat([frame[["family", "arm"]], arm, frame.drop(columns=["family", "arm"])], axis="columns")
    return frame.reset_index(drop=True)


def pretrained_pairs(results: Results) -> DataFrame:
    """StableVS minus other arms of its family and solver, mean over the pictures of each prompt."""
    names = families(results.study)
    frame: DataFrame = pd.concat([results.csv(LAYOUT.family_pairs(name)).assign(family=name) for name in names])
    keys = ["family", "arm", "against", "prompt"]
    return frame.groupby(keys, sort=False).mean().drop(columns="image").reset_index()


def scheduler_errors(results: Results) -> DataFrame:
    """Error of each sampler against a fine solution, on mixtures with closed-form velocity."""
    return results.csv(LAYOUT.scheduler_errors)


def pretrained_judge(results: Results) -> DataFrame:
    """The digit detector's score of real scenes: the highest that a tiny model can be expected to reach."""
    scores = results.json(LAYOUT.detector_accuracy)
    return pd.DataFrame({"scenes": list(scores), "score": list(scores.values())})


def tiny_models(results: Results) -> DataFrame:
    """What was trained here: sizes, and how well each autoencoder draws, which bounds what its model can draw."""
    settings: Any = results.study.pretrained
    rows = []
    for family in settings.tiny:
        facts = results.json(LAYOUT.tiny_model(family))
        sizes = {f"{part}_parameters": facts["parameters"][part] for part in ("transformer", "autoencoder")}
        rows.append({"family": family, **sizes, **{name: facts[name] for name in ("autoencoder_psnr", "loss")}})
    return pd.DataFrame(rows)
