"""A study of pretrained models only, from prompts to its report, with models that are hardly trained."""

import base64
import json

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stablevelocity.errors import UserError
from stablevelocity.files import read_json
from stablevelocity.pretrained import stages
from stablevelocity.pretrained.families import FAMILIES
from stablevelocity.pretrained.picture_files import save_picture
from stablevelocity.pretrained.prompts import digit_video_prompts, write_prompts
from stablevelocity.reporting import registry
from stablevelocity.reporting.make import make_claims, make_figure, make_table
from stablevelocity.reporting.page import make_page
from stablevelocity.reporting.paper_rows import make_paper_tables
from stablevelocity.reporting.reference import make_reference
from stablevelocity.reporting.results import Results
from stablevelocity.reporting.sections.pretrained.figures import pretrained_images, pretrained_videos
from stablevelocity.reporting.sections.pretrained.view import EQUAL, view
from stablevelocity.reporting.text_table import text_table
from stablevelocity.study import load_study, parse_study, study_json
from stablevelocity.study.pretrained_settings import VIDEO

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
        stages.write_prompt_file(settings, family, prompts)
        stages.train_tiny_model(settings, family, None, model / "training.json")
        shards = [folder / "samples" / f"shard-{shard:05d}.json" for shard in range(chosen.shards)]
        for shard, output in enumerate(shards):
            stages.generate_arms(settings, family, model, prompts, shard, "cpu", output)
        stages.score_family(settings, family, prompts, shards, folder / "metrics.csv", folder / "pairs.csv")
        if family in VIDEO:
            videos = folder / "comparison.mp4", folder / "comparison.gif"
            stages.compare_videos(settings, family, prompts, shards[0], *videos)
    stages.write_detector_accuracy(results / "pretrained" / "judge.json")
    stages.write_scheduler_errors(settings, results / "pretrained" / "scheduler_errors.csv")
    for name in registry.tables(study):
        make_table(study, results, name, results / "tables" / f"{name}.csv")
    for name in registry.figures(study):
        make_figure(study, results, name, results / "figures" / f"{name}.png")
    make_paper_tables(study, results)
    make_claims(study, results, results / "claims.json")
    make_page(study, results, results / "report.html")
    return study, results


def test_every_arm_has_its_row_with_score_similarity_and_three_times(made):
    _study, results = made
    table = pd.read_csv(results / "tables" / "table4.csv").set_index("arm")
    assert list(table.index) == [f"{s}-{k}" for s in ("euler", "dpm") for k in ("long", "short", "stablevs", "control")]
    assert table.loc["euler-stablevs", "steps"] == table.loc["euler-control", "steps"] == 20
    assert table["psnr"].isna().tolist() == [True, False, False, False] * 2
    assert table["score"].notna().all()
    seconds = table[["seconds_low_regime", "seconds_denoising", "seconds_end_to_end"]]
    assert (seconds.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)
    # On the linear path with Euler the control arm is StableVS.
    pairs = pd.read_csv(results / "tables" / "pretrained_pairs.csv")
    same = (pairs["family"] == "sd35") & (pairs["arm"] == "euler-stablevs") & (pairs["against"] == "control")
    assert pairs.loc[same, ["psnr", "ssim", "score", "flips"]].eq(0).all(axis=None)


def test_the_trained_models_say_how_well_their_autoencoders_draw(made):
    _study, results = made
    table = pd.read_csv(results / "tables" / "tiny_models.csv").set_index("family")
    for family, row in table.iterrows():
        facts = read_json(results / "pretrained" / str(family) / "model" / "training.json")
        assert row["autoencoder_psnr"] == pytest.approx(facts["autoencoder_psnr"], rel=1e-5)  # six digits are written
    assert "The tiny models" in (results / "report.html").read_text()
    judged = pd.read_csv(results / "tables" / "pretrained_judge.csv").set_index("scenes")["score"]
    assert judged.to_dict() == pytest.approx(read_json(results / "pretrained" / "judge.json"), rel=1e-5)
    figure = Image.open(results / "figures" / "pretrained_images.png")
    assert len(figure.convert("RGB").getcolors(2**24) or []) > 32  # pictures, not an empty frame


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
    for words in ("Table 4 as measured", "Table 5 as measured", *registry.paper_tables(_study).values()):
        assert words in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    claims = {claim["id"]: claim for claim in read_json(results / "claims.json")}
    kinds = ("short", "ssim", "flips", "score", "control")
    assert {f"stablevs-{name}-{kind}" for name in ("sd35", "sd35-dpm", "wan22") for kind in kinds} == set(claims)
    # With Euler the closed form is the base step: no finding, but a check.
    assert claims["stablevs-sd35-control"]["verdict"] == "check of the implementation"
    assert claims["stablevs-sd35-dpm-control"]["verdict"] != "check of the implementation"


def test_the_sweep_shows_the_control_arm_beside_stablevs_at_every_xi(made):
    study, results = made
    sweep = view(Results(study, results, tables=registry.tables(study)))["sweep"]
    table = text_table("pretrained_xi", sweep)
    kinds = {("SD3.5", "0.7"): 2, ("SD3.5", "0.85"): 2, ("Wan2.2", "0.7"): 2, ("Wan2.2", "0.85"): 2}
    for (model, xi), count in kinds.items():
        samplers = [row[1] for row in table.rows if (row[0], row[2]) == (model, xi)]
        assert len(samplers) == count
        assert "StableVS" in samplers[0]
        assert "control" in samplers[1]
    # At the table's xi the control arm was drawn; at the other it is StableVS by construction, and the row says so.
    assert [row[1] for row in table.rows if row[0] == "SD3.5"] == [
        "Euler + StableVS",
        f"Euler, control ({EQUAL})",
        "Euler + StableVS",
        "Euler, control",
    ]
    assert "differ by: SD3.5 0 dB." in " ".join((results / "report.html").read_text().split())


def test_the_page_says_what_such_a_study_can_show_and_nothing_of_training(made):
    _study, results = made
    html = (results / "report.html").read_text()
    assert "tiny models of the real classes, trained on digit scenes: sd35, wan22" in html
    assert "It cannot say how the originals fare" in html
    for word in ("FID here", "SiT of", "SiT-", "ImageNet"):
        assert word not in html


@pytest.mark.parametrize("frames, shown", [(5, [1, 2, 3, 4, 5]), (81, [1, 21, 41, 61, 81]), (2, [1, 2])])
def test_a_figure_shows_a_few_small_frames_of_a_long_video(frames, shown, made, tmp_path):
    study, _results = made
    family = FAMILIES["wan22"]
    prompts = digit_video_prompts(3, 0)
    folder = tmp_path / "pretrained" / "wan22"
    write_prompts(folder / "prompts.jsonl", prompts)
    long = np.zeros((frames, 300, 400, 3), np.uint8) + np.arange(frames, dtype=np.uint8)[:, None, None, None]
    for kind in ("long", "short", "stablevs", "control"):
        for prompt, wanted in enumerate(prompts):
            save_picture(family, folder / "samples" / f"unipc-{kind}", prompt, 0, wanted, long)
    panel = pretrained_videos(Results(study, tmp_path)).axes[0]
    assert [label.get_text() for label in panel.get_xticklabels()] == [f"frame {number}" for number in shown]
    # Of a prompt, four arms below each other; frames shrunk to 256 pixels beside each other; 10 pixels between.
    strips, beside = panel.images[0].get_array(), len(shown)
    assert strips.shape == (4 * 192 + 3 * 10, beside * 256 + (beside - 1) * 10, 3)
    assert (strips[0, :: 256 + 10, 0] + 1).tolist() == shown


def test_images_have_a_row_for_each_prompt_and_a_column_for_each_way_of_sampling(tmp_path):
    study, family = parse_study(STUDY), FAMILIES["sd35"]
    folder = tmp_path / "pretrained" / "sd35"
    prompts = [{"prompt": f"prompt {number}", "tag": "position"} for number in range(6)]
    folder.mkdir(parents=True)
    (folder / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    for place, kind in enumerate(("long", "short", "stablevs", "control")):
        for number, wanted in enumerate(prompts):
            picture = np.full((32, 32, 3), 40 * place + number, np.uint8)
            save_picture(family, folder / "samples" / f"euler-{kind}", number, 0, wanted, picture)
    panel = pretrained_images(Results(study, tmp_path)).axes[0]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["long", "short", "StableVS", "control"]
    assert [label.get_text() for label in panel.get_yticklabels()] == [prompt["prompt"] for prompt in prompts]
    shown = panel.images[0].get_array()[16::33, 16::33, 0]
    assert shown.tolist() == [[40 * place + number for place in range(4)] for number in range(6)]


def test_the_preview_moves_in_the_page_and_is_kept_with_it(made, tmp_path):
    study, results = made
    gif = results / "pretrained" / "wan22" / "comparison.gif"
    html = (results / "report.html").read_text()
    assert "data:image/gif;base64," + base64.b64encode(gif.read_bytes()).decode() in html
    (results / "study.json").write_text(study_json(study))
    make_reference(results, tmp_path / "kept")
    for name in ("comparison.gif", "comparison.mp4"):
        kept = tmp_path / "kept" / "pretrained" / "wan22" / name
        assert kept.read_bytes() == (results / "pretrained" / "wan22" / name).read_bytes()
        assert kept.stat().st_size <= 500_000


def test_a_study_without_arms_or_pretrained_models_is_refused():
    with pytest.raises(UserError, match="needs arms"):
        parse_study({"name": "nothing"})


@pytest.mark.parametrize("name", ["pretrained", "pretrained-tiny"])
def test_the_committed_studies_are_valid(name):
    study = load_study(f"config/{name}.yaml")
    assert set(study.pretrained.families) == {"sd35", "flux", "qwen-image", "wan22"}


@pytest.mark.parametrize(
    "family, problem",
    [({}, "prompt file"), ({"tiny": {}, "prompts": "a.jsonl"}, "leave it out"), ({"tiny": {"step": 3}}, "step")],
)
def test_a_family_that_cannot_run_is_refused(family, problem):
    with pytest.raises(UserError, match=problem):
        parse_study({"name": "x", "pretrained": {"families": {"sd35": family}}})
