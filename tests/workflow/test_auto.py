"""Numbers that a study leaves to the variance curve of its own latents: `alignment.xi` and `stablevm.t_min: auto`."""

import json
import shutil

import pandas as pd
import pytest
from safetensors.numpy import load_file

from stablevelocity.models.networks import load_network

pytestmark = pytest.mark.workflow

ARM = "arms={{stablevm-va: {{alignment: {{xi: {0}}}, stablevm: {{t_min: {0}}}}}}}"
AUTO = ARM.format("auto")
RUN = "results/smoke/runs/stablevm-va-s0"
WEIGHTS = "weights/step-00000020.safetensors"


def trained_in(planned: set[str]) -> set[str]:
    return {name for name in planned if name.startswith("train_")}


def test_auto_is_the_split_point_of_the_latents_and_follows_the_curve(finished, server):
    def train(arm: str) -> None:
        done = finished.snakemake(f"{RUN}/metrics.csv", "--config", arm, "--configfile", "config/smoke.yaml")
        assert done.returncode == 0, done.stdout + done.stderr

    assert trained_in(finished.planned("--config", AUTO)) == {"train_stablevm-va-s0"}
    train(AUTO)
    row = pd.read_csv(finished.results / "variance" / "latents.split_point.csv").set_index("law").loc["empirical"]
    settings = json.loads(json.loads((finished.folder / RUN / "metrics.csv.provenance.json").read_text())["settings"])
    made = settings[0]
    assert made["alignment"]["xi"] == made["stablevm"]["t_min"] == pytest.approx(row["xi"], abs=5e-4)
    said = load_network(finished.folder / RUN / WEIGHTS)[1]["run"]["intervals"]
    assert said["alignment.xi"] == pytest.approx([row["low"], row["high"]], abs=5e-4)
    assert trained_in(finished.planned("--config", AUTO)) == set()
    # Another curve: the arm that follows it, and no other.
    assert trained_in(finished.planned("--config", AUTO, "variance={seed: 1}")) == {"train_stablevm-va-s0"}
    # The number written out: trained anew the same weights, bit for bit.
    written = ARM.format(made["alignment"]["xi"])
    kept = shutil.copy(finished.folder / RUN / WEIGHTS, finished.folder / "auto.safetensors")
    shutil.rmtree(finished.folder / RUN)
    train(written)
    ours, theirs = load_file(kept), load_file(finished.folder / RUN / WEIGHTS)
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)


def test_training_by_hand_says_that_the_curve_is_missing(finished):
    (finished.results / "variance" / "latents.split_point.csv").unlink()
    study = finished.results / "study.json"
    content = json.loads(study.read_text())
    content["arms"]["stablevm-va"]["alignment"]["xi"] = "auto"
    study.write_text(json.dumps(content))
    words = ("--run", "stablevm-va-s0", "--latents", "none", "--folder", "runs")
    done = finished.run("stablevelocity", "train", "--study", str(study), *words)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "arms.stablevm-va: auto, but the curve of the latents does not lie beside it"
    )
