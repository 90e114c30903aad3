"""A study of pretrained models only, from prompts to its report, with models that are hardly trained."""

import imageio.v3 as iio
import pandas as pd
import pytest
from PIL import Image

from stablevelocity.errors import UserError
from stablevelocity.files import read_json
from stablevelocity.pretrained import jobs
from stablevelocity.reporting import registry
from stablevelocity.reporting.claims import make_claims
from stablevelocity.reporting.figures import make_figure
from stablevelocity.reporting.page import make_page
from stablevelocity.reporting.tables import make_table
from stablevelocity.study import load_study, parse_study

TINY = {"scenes": 16, "autoencoder_steps": 1, "autoencoder_batch": 4, "steps": 1, "batch": 4}
STUDY = {
    "name": "micro",
    "pretrained": {
        "xi_sweep": [0.7, 0.85],
        "gmm_dimensions": [4],
        "gmm_points": 16,
        "families": {
            "sd35": {"tiny": TINY, "prompts_per_task": 1, "images": 1, "batch": 8, "shards": 2},
            "wan22": {"tiny": TINY, "prompts_per_task": 3, "images": 1, "batch": 3},
        },
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The workflow's stages in its order, one after the other."""
    study, results = parse_study(STUDY), tmp_path_factory.mktemp("micro")
    settings = study.pretrained
    for family, chosen in settings.families.items():
        folder = results / "pretrained" / family
        prompts, model = folder / "prompts.jsonl", folder / "model"
        jobs.write_prompt_file(settings, family, prompts)
        jobs.train_tiny_model(settings, family, None, model / "training.json")
        shards = [folder / "samples" / f"shard-{shard:05d}.json" for shard in range(chosen.shards)]
        for shard, output in enumerate(shards):
            jobs.generate_arms(settings, family, model, prompts, shard, settings.arm_names(family), "cpu", output)
        jobs.score_family(settings, family, prompts, shards, folder / "metrics.csv")
    jobs.write_judge_accuracy(results / "pretrained" / "judge.json")
    jobs.write_scheduler_errors(settings, results / "pretrained" / "scheduler_errors.csv")
    for name in registry.tables(study):
        make_table(study, results, name, results / "tables" / f"{name}.csv")
    for name in registry.figures(study):
        make_figure(study, results, name, results / "figures" / f"{name}.png")
    make_claims(study, results, results / "claims.json")
    make_page(study, results, results / "report.html")
    return study, results


def test_every_arm_has_its_row_with_score_likeness_and_three_times(made):
    _study, results = made
    table = pd.read_csv(results / "tables" / "table4.csv").set_index("arm")
    assert list(table.index) == [f"{s}-{k}" for s in ("euler", "dpm") for k in ("long", "short", "stablevs", "control")]
    assert table.loc["euler-stablevs", "steps"] == table.loc["euler-control", "steps"] == 20
    assert table["psnr"].isna().tolist() == [True, False, False, False] * 2
    assert table["score"].notna().all()
    seconds = table[["seconds_low_regime", "seconds_denoising", "seconds_end_to_end"]]
    assert (seconds.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)
    # On the linear path with Euler the control arm is StableVS.
    assert table.loc["euler-stablevs", "psnr_over_control"] == 0


def test_videos_are_compared_and_swept_too(made):
    _study, results = made
    table = pd.read_csv(results / "tables" / "table5.csv").set_index("arm")
    assert list(table.index) == ["unipc-long", "unipc-short", "unipc-stablevs", "unipc-control"]
    assert {"score", "score_motion", "psnr", "ssim"} <= set(table.columns)
    folder = results / "pretrained" / "wan22"
    # Three videos of four arms, 32 pixels each, enlarged twice; the mp4 and the preview show the same frames.
    assert Image.open(folder / "comparison.gif").size == (4 * 32 * 2, 3 * 32 * 2)
    assert Image.open(folder / "comparison.gif").n_frames == len(iio.imread(folder / "comparison.mp4")) == 5
    sweep = pd.read_csv(results / "tables" / "pretrained_xi.csv")
    # A lower xi keeps more of the base steps: 30 base steps at shift 3 become 26 at 0.70 and 20 at 0.85.
    steps = sweep[(sweep["family"] == "sd35") & (sweep["kind"] == "stablevs")].set_index("xi")["steps"]
    assert steps.to_dict() == {0.7: 26, 0.85: 20}


def test_the_report_shows_measured_beside_published(made):
    _study, results = made
    html = (results / "report.html").read_text()
    for words in ("Table 4 as measured", "Table 4 of the paper", "Table 5 as measured", "Table 5 of the paper"):
        assert words in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    claims = {claim["id"]: claim for claim in read_json(results / "claims.json")}
    assert {"stablevs-sd35-short", "stablevs-wan22-short", "stablevs-wan22-control"} == set(claims)


def test_a_study_without_arms_or_pretrained_models_is_refused():
    with pytest.raises(UserError, match="needs arms"):
        parse_study({"name": "nothing"})


@pytest.mark.parametrize("name", ["pretrained", "pretrained-tiny"])
def test_the_committed_studies_are_valid(name):
    study = load_study(f"config/{name}.yaml")
    assert set(study.pretrained.families) == {"sd35", "flux", "qwen-image", "wan22"}


@pytest.mark.parametrize(
    "family, problem",
    [({}, "prompt file"), ({"tiny": {}, "prompts": "a.jsonl"}, "leave out"), ({"tiny": {"step": 3}}, "step")],
)
def test_a_family_that_cannot_run_is_refused(family, problem):
    with pytest.raises(UserError, match=problem):
        parse_study({"name": "x", "pretrained": {"families": {"sd35": family}}})
