"""Tables 4 and 5 as measured, the sweep of xi, and the schedulers' errors on known velocities."""

import pandas as pd

from stablevelocity.reporting.sections.pretrained import ERRORS, JUDGE, families, metrics_file, training_file
from stablevelocity.reporting.source import Frame, Source


def images(source: Source) -> Frame:
    """Table 4: a row per image family and arm."""
    return _arms(source, video=False)


def videos(source: Source) -> Frame:
    """Table 5: a row per video family and arm."""
    return _arms(source, video=True)


def sweep(source: Source) -> Frame:
    """The thinned arms of each family's main base solver at every value of xi."""
    frame = _all(source, video=None)
    main = frame["solver"] == frame.groupby("family")["solver"].transform("first")
    return frame[main & frame["kind"].isin(["stablevs", "control"])].sort_values(["family", "kind", "xi"])


def scheduler_errors(source: Source) -> Frame:
    return source.csv(ERRORS)


def judge(source: Source) -> Frame:
    """What the digit judge gives real scenes: the ceiling of the tiny models' scores."""
    found = source.json(JUDGE)
    return pd.DataFrame({"scenes": list(found), "score": list(found.values())})


def tiny_models(source: Source) -> Frame:
    """What was trained here: sizes, and how well each autoencoder draws, which bounds what its model can draw."""
    settings = source.study.pretrained
    assert settings is not None
    rows = []
    for family in settings.tiny:
        found = source.json(training_file(family))
        rows.append(
            {
                "family": family,
                "transformer_parameters": found["parameters"]["transformer"],
                "autoencoder_parameters": found["parameters"]["autoencoder"],
                "autoencoder_psnr": found["autoencoder_psnr"],
                "loss": found["loss"],
            }
        )
    return pd.DataFrame(rows)


def _arms(source: Source, *, video: bool) -> Frame:
    """Without the sweep's other values of xi."""
    frame = _all(source, video=video)
    return frame[~frame["arm"].str.contains("-xi")]


def _all(source: Source, *, video: bool | None) -> Frame:
    settings = source.study.pretrained
    assert settings is not None
    parts = []
    for family in families(source.study, video=video):
        frame = source.csv(metrics_file(family))
        names = frame["arm"].str.extract(r"^(?P<solver>[a-z]+)-(?P<kind>[a-z]+)(?:-xi(?P<xi>[0-9.e-]+))?$")
        thinned = names["kind"].isin(["stablevs", "control"])
        xi = names["xi"].astype(float).fillna(settings.xi).where(thinned)
        parts.append(frame.assign(family=family, solver=names["solver"], kind=names["kind"], xi=xi))
    together = pd.concat(parts, ignore_index=True)
    first = ["family", "arm", "solver", "kind", "xi"]
    return together[[*first, *(column for column in together if column not in first)]]
