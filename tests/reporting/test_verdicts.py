"""Verdicts are right: an independent script agrees, null data support nothing, and mistakes are noticed."""

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from stablevelocity.experiments.variance_study import gaussian_like
from stablevelocity.reporting import registry, verdicts
from stablevelocity.reporting.claims import records
from stablevelocity.reporting.make import make_claims
from stablevelocity.reporting.results import Results
from stablevelocity.reporting.sections.pretrained import claims as of_pretrained
from stablevelocity.reporting.sections.sampling import claims as of_sampling
from stablevelocity.reporting.sections.toy import claims as of_toy
from stablevelocity.reporting.sections.training import claims as of_training
from stablevelocity.reporting.sections.variance import claims as of_variance
from stablevelocity.reporting.statistics import difference
from stablevelocity.study import load_study, parse_study
from stablevelocity.study.methods import comparisons
from stablevelocity.variance import split_point, variance_curve

from . import synthetic
from .recompute import disagreements

REFERENCES = [path.parent for path in sorted(Path("results/reference").glob("*/claims.json"))]
NEEDED = {"toy_runs", "stablevs_images", "pretrained_pairs"}
SIMULATIONS = 200
ONE_SIDED = 0.025
"""How often a claim about nothing may come out as supported."""


@dataclass(frozen=True)
class InMemory(Results):
    """Results whose tables are data frames, so that claims of hundreds of studies are tested in seconds."""

    frames: dict[str, pd.DataFrame] = field(default_factory=dict)

    def table(self, name: str) -> Any:
        return self.frames.get(name)


def in_memory(study, frames) -> InMemory:
    return InMemory(study, Path("nowhere"), synthetic.PUBLISHED, tables=list(frames), frames=frames)


# --- an independent script ---------------------------------------------------------------------------------


def test_an_independent_script_finds_the_same_verdicts(digits, minimal):
    assert disagreements(digits) == []
    assert disagreements(minimal) == []


@pytest.mark.parametrize("folder", REFERENCES, ids=lambda folder: folder.name)
def test_the_committed_verdicts_are_those_of_the_committed_tables(folder):
    study = load_study(folder / "study.json")
    missing = (NEEDED & registry.tables(study).keys()) - {file.stem for file in (folder / "tables").glob("*.csv")}
    if missing:
        pytest.skip(f"made before the tables {', '.join(sorted(missing))} were")
    assert disagreements(folder) == []


def pairs_table(rng: np.random.Generator, effect: float, prompts: int = 60) -> pd.DataFrame:
    """pretrained_pairs of two families: Euler's control equal, differences of size `effect` between prompts of sd 1."""
    rows = []
    for family, solver in (("sd35", "euler"), ("sd35", "dpm"), ("wan22", "unipc")):
        for against in ("short", "control", "long"):
            for prompt in range(prompts):
                row = {"family": family, "arm": f"{solver}-stablevs", "against": against, "prompt": prompt}
                same = against == "control" and solver == "euler"
                row |= {"psnr": 0.0 if same else effect + rng.normal()} if against != "long" else {"psnr": math.nan}
                row |= {"ssim": row["psnr"] / 100, "score": rng.normal(0, 0.03), "flips": -effect / 10 + rng.normal()}
                rows.append(row)
    return pd.DataFrame(rows)


def pretrained_study():
    tiny = {"tiny": {"steps": 5}, "images": 1}
    return parse_study({"name": "p", "toy": None, "pretrained": {"families": {"sd35": tiny, "wan22": tiny}}})


def arms_table(study) -> pd.DataFrame:
    rows = [("sd35", "euler"), ("sd35", "dpm"), ("wan22", "unipc")]
    return pd.DataFrame(
        [
            {"family": f, "arm": f"{s}-stablevs", "solver": s, "kind": "stablevs", "steps": 20, "pictures": 60}
            for f, s in rows
        ]
    )


def test_the_script_agrees_about_pretrained_pictures_too(tmp_path):
    study, rng = pretrained_study(), np.random.default_rng(0)
    frames = {"pretrained_pairs": pairs_table(rng, 0.5), "table4": arms_table(study)}
    claims = of_pretrained.claims(in_memory(study, frames))
    (tmp_path / "tables").mkdir()
    frames["pretrained_pairs"].to_csv(tmp_path / "tables/pretrained_pairs.csv", index=False)
    (tmp_path / "claims.json").write_text(json.dumps(records(claims, "scope")))
    assert disagreements(tmp_path) == []
    found = {claim.id: claim.outcome.verdict for claim in claims}
    assert found["stablevs-sd35-short"] == "supported"
    assert found["stablevs-sd35-control"] == "check of the implementation"
    assert found["stablevs-sd35-score"] == "equivalent"


# --- null data ---------------------------------------------------------------------------------------------


def supported_too_often(counts: dict[str, int], simulations: int = SIMULATIONS) -> list[str]:
    """Claims supported more often than the nominal rate allows: four binomial standard deviations above it."""
    most = simulations * ONE_SIDED + 4 * math.sqrt(simulations * ONE_SIDED * (1 - ONE_SIDED))
    return [f"{name}: {count} of {simulations}" for name, count in counts.items() if count > most]


def count(counts: dict[str, int], claims: list) -> None:
    for claim in claims:
        counts[claim.id] = counts.get(claim.id, 0) + (claim.outcome.verdict == "supported")


def training_claims(study, values: pd.DataFrame) -> list:
    """Of a table of arms by seeds: all of them without guidance, two with."""
    rows = []
    for sampler, table in (("ode", values), ("sde-guided", values.loc[["cfm", "stablevm-va"]] * 0.6)):
        for comparison, arm, against in comparisons(study):
            if arm in table.index and against in table.index:
                change = difference(table, arm, against)
                row = {"comparison": comparison, "arm": arm, "against": against, "step": 1, "sampler": sampler}
                row |= {"metric": "fid", "seed_list": "seeds 0", "images": 1, "seeds": change.count}
                row |= {"difference": change.pooled.mean, "standard_error": change.pooled.error}
                row |= {"freedom": change.pooled.freedom, "relative": 0.0, "published": "", "low": 0.0, "high": 0.0}
                rows.append(row | {"paired_low": 0.0, "paired_high": 0.0})
    return of_training.claims(in_memory(study, {"differences": pd.DataFrame(rows)}))


def test_shuffled_arms_and_pure_noise_are_better_than_nothing_at_the_nominal_rate():
    study, rng = synthetic.digits(seeds=[0, 1, 2]), np.random.default_rng(11)
    true = pd.Series(synthetic.EFFECTS)
    shuffled, noise, families = {}, {}, 0
    for _ in range(SIMULATIONS):
        columns = {seed: rng.permutation(true) + rng.normal(0, 0.02, len(true)) for seed in range(3)}
        count(shuffled, training_claims(study, pd.DataFrame(columns, index=true.index)))
        columns = {seed: rng.normal(1 + 0.3 * seed, 0.1, len(true)) for seed in range(3)}
        claims = training_claims(study, pd.DataFrame(columns, index=true.index))
        count(noise, claims)
        families += any(record["corrected"] == "supported" for record in records(claims, ""))
    assert {"stablevm", "repa", "repa-low", "repa-high", "repa-stable", "guided"} == noise.keys()
    assert supported_too_often(shuffled) == []
    assert supported_too_often(noise) == []
    # Holm bounds the chance that any claim of a study stands.
    assert supported_too_often({"after Holm": families}) == []


def test_objectives_that_do_not_differ_support_nothing_and_are_found_equivalent_when_sure():
    study, rng, counts, equal = synthetic.digits(), np.random.default_rng(12), {}, 0
    for _ in range(SIMULATIONS):
        rows = []
        for measure in ("error", "target", "gradient"):
            for seed in range(5):
                for t in (0.2, 0.3, 0.4, 0.5):
                    shared = math.exp(rng.normal(0, 0.3))
                    values = {o: shared * math.exp(rng.normal(0, 0.004)) for o in ("cfm", "stf", "stablevm")}
                    keys = {"measure": measure, "seed": seed, "t": t, "cfm": values["cfm"]}
                    rows += [keys | {"objective": o, "value": value} for o, value in values.items()]
        claims = of_toy.claims(in_memory(study, {"toy_runs": pd.DataFrame(rows)}))
        count(counts, claims)
        equal += sum(claim.outcome.verdict == "equivalent" for claim in claims)
    assert len(counts) == 7
    assert supported_too_often(counts) == []
    assert equal > SIMULATIONS / 2


def test_errors_at_the_margin_are_equivalent_at_the_nominal_rate():
    study, rng, equal = synthetic.digits(), np.random.default_rng(13), 0
    for _ in range(SIMULATIONS):
        rows = [
            {
                "measure": "error",
                "objective": o,
                "seed": seed,
                "t": 0.3,
                "cfm": 1.0,
                "value": mean + rng.normal(0, 0.002),
            }
            for seed in range(5)
            for o, mean in (("stf", 1.0), ("stablevm", 1 + of_toy.MARGIN))
        ]
        claims = of_toy.claims(in_memory(study, {"toy_runs": pd.DataFrame(rows)}))
        equal += next(c for c in claims if c.id == "toy-error-stf").outcome.verdict == "equivalent"
    assert equal <= SIMULATIONS * 0.05 + 4 * math.sqrt(SIMULATIONS * 0.05 * 0.95)


def test_images_that_do_not_differ_support_nothing(digits, monkeypatch):
    """Images are of one noise in several xi and steps: as a cluster each counts once."""
    monkeypatch.setattr("stablevelocity.reporting.statistics.RESAMPLES", 1000)
    study, rng, counts = synthetic.digits(), np.random.default_rng(14), {}
    frames = {name: pd.read_csv(digits / f"tables/{name}.csv") for name in ("stablevs", "variance", "few_step")}
    images = pd.read_csv(digits / "tables/stablevs_images.csv")
    numbers = images["image"].to_numpy()
    for _ in range(SIMULATIONS):
        own = rng.normal(0, 1, numbers.max() + 1)[numbers]
        noise = {f"psnr_over_{other}": own + rng.normal(0, 0.1, len(own)) for other in ("base", "control")}
        count(counts, of_sampling.claims(in_memory(study, frames | {"stablevs_images": images.assign(**noise)})))
    assert {"stablevs-paper-xi", "stablevs-own-xi", "stablevs-step-heun"} <= counts.keys()
    assert supported_too_often(counts) == []


def test_pictures_that_do_not_differ_support_nothing(monkeypatch):
    monkeypatch.setattr("stablevelocity.reporting.statistics.RESAMPLES", 1000)
    study, rng, counts = pretrained_study(), np.random.default_rng(15), {}
    for _ in range(SIMULATIONS // 2):
        frames = {"pretrained_pairs": pairs_table(rng, 0.0), "table4": arms_table(study)}
        count(counts, of_pretrained.claims(in_memory(study, frames)))
    assert len(counts) == 15
    assert supported_too_often(counts, SIMULATIONS // 2) == []


def test_pure_noise_has_two_regimes_and_supports_nothing():
    """Points of white or coloured noise turn as data do; a claim that noise passes as well is no finding."""
    study, times = synthetic.digits(), torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
    found = []
    for seed in range(SIMULATIONS):
        generator = torch.Generator().manual_seed(seed)
        points = torch.randn(150, 64, generator=generator) * torch.linspace(1, 0.2, 64)
        rows = []
        for law, samples in (("empirical", points), ("noise", gaussian_like(points, generator))):
            curve = variance_curve(samples, times=times, generator=generator)
            split = split_point(curve, resamples=20)
            row = {"source": "latents", "law": law, "dimension": 64, "samples": 150, "published_rise": math.nan}
            rows.append(row | {"split_point": split.xi, "split_low": split.low, "split_high": split.high})
        claims = of_variance.claims(in_memory(study, {"variance": pd.DataFrame(rows)}))
        found += [claim.outcome.verdict for claim in claims]
    assert set(found) == {"check of the implementation"}


# --- mistakes ----------------------------------------------------------------------------------------------


def swapped(folder: Path) -> None:
    """Two arms change places in what the verdict is computed from."""
    file = folder / "tables/differences.csv"
    table = pd.read_csv(file)
    table["difference"] = -table["difference"]
    table.to_csv(file, index=False)


def duplicated(folder: Path) -> None:
    """Each seed counted twice, as if it were two."""
    file = folder / "tables/toy_runs.csv"
    table = pd.read_csv(file)
    pd.concat([table, table.assign(seed=table["seed"] + 100)]).to_csv(file, index=False)


@pytest.mark.parametrize("mistake", [swapped, duplicated])
def test_a_mistake_in_the_data_of_a_verdict_is_noticed(digits, tmp_path, mistake):
    wrong = shutil.copytree(digits / "tables", tmp_path / "wrong/tables").parent
    mistake(wrong)
    make_claims(synthetic.digits(), wrong, wrong / "claims.json")
    right = shutil.copytree(digits / "tables", tmp_path / "right/tables").parent
    shutil.copy(wrong / "claims.json", right / "claims.json")
    assert disagreements(right)


def test_a_turned_direction_and_images_taken_as_independent_are_noticed(digits, tmp_path, monkeypatch):
    folder = shutil.copytree(digits / "tables", tmp_path / "tables").parent

    def wrong() -> list[str]:
        make_claims(synthetic.digits(), folder, folder / "claims.json")
        return disagreements(folder)

    assert wrong() == []
    turned = {"below": "above", "above": "below"}
    with monkeypatch.context() as patch:
        for section in (of_training, of_toy, of_sampling, of_variance):
            patch.setattr(
                section, "by_effect", lambda e, side, *more, **k: verdicts.by_effect(e, turned[side], *more, **k)
            )
        assert {line.split(":")[0] for line in wrong()} >= {"stablevm", "repa-high", "toy-target-variance"}
    images = pd.read_csv(folder / "tables/stablevs_images.csv")
    own = np.random.default_rng(3).normal(0.1, 1, images["image"].max() + 1)
    images["psnr_over_control"] = own[images["image"]]  # one image in several xi and steps: nothing new
    images.to_csv(folder / "tables/stablevs_images.csv", index=False)
    assert wrong() == []
    whole = of_sampling.over_clusters
    monkeypatch.setattr(of_sampling, "over_clusters", lambda v, clusters: whole(v, pd.Series(range(len(clusters)))))
    assert [line for line in wrong() if line.startswith("stablevs-step-heun: supported")]
