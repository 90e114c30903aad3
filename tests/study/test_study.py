"""Study files: valid ones load, wrong ones end in one line that names the key."""

import copy
from pathlib import Path

import pytest
import yaml

from stablevelocity.cli.checks import check_machine
from stablevelocity.errors import UserError
from stablevelocity.study import load_study, parse_study, study_json, study_schema
from stablevelocity.study.methods import alignment_text, target_text
from stablevelocity.training.identity import settings_of

CONFIG = Path(__file__).parents[2] / "config"
SMOKE = yaml.safe_load((CONFIG / "smoke.yaml").read_text())


def changed(keys: str, value) -> dict:
    """The smoke study with one value, given by its dotted key, put in place of another."""
    study = copy.deepcopy(SMOKE)
    *path, last = keys.split(".")
    node = study
    for key in path:
        node = node.setdefault(key, {})
    node[last] = value
    return study


@pytest.mark.parametrize("word", ["x" * 64, "0a", "StableVM_va-0.7"])
def test_plain_words_are_names(word):
    study = copy.deepcopy(SMOKE) | {"name": word}
    study["arms"][word] = {"label": "x"}
    study["sampling"] |= {"main": word, "samplers": {word: {}}, "arms": {word: [word]}}
    assert f"{word}-s0" in parse_study(study).runs()


def test_a_key_that_is_no_text_to_print_is_one_line():
    with pytest.raises(UserError, match="no such key") as error:
        parse_study(SMOKE | {"a\nb\x1b[31m": 1})
    assert str(error.value).isprintable()


def test_a_misspelt_key_of_a_named_section_is_said_with_the_right_one():
    with pytest.raises(UserError, match=r"sampling\.samplers\.ode\.step: no such key; did you mean 'steps'\?"):
        parse_study(changed("sampling.samplers.ode.step", 4))


def test_a_file_that_is_no_yaml_or_not_there_is_named(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,\nb: 2")
    with pytest.raises(UserError, match=r"broken\.yaml: line 2 is not YAML"):
        load_study(broken)
    with pytest.raises(UserError, match=r"gone\.yaml: cannot be read"):
        load_study(tmp_path / "gone.yaml")


def test_a_missing_path_is_named_by_its_key():
    study = parse_study(changed("images", {"dataset": "folder", "path": "/no/such/folder"}))
    with pytest.raises(UserError, match=r"^images\.path: there is no '/no/such/folder'$"):
        check_machine(study)


@pytest.mark.parametrize("given, read", [("true", True), ("False", False), (True, True)])
def test_a_flag_of_the_command_line_comes_as_text(given, read):
    # snakemake --config 'training={compile: true}'
    assert parse_study(changed("training.compile", given)).training.compile is read


def test_numbers_that_yaml_reads_as_text_are_numbers():
    # YAML 1.1 takes 1e-3 for a string.
    assert parse_study(changed("training.lr", "1e-3")).training.lr == 1e-3


@pytest.mark.parametrize("name", ["digits", "smoke"])
def test_the_resolved_study_is_the_same_study(name, tmp_path):
    study = load_study(CONFIG / f"{name}.yaml")
    resolved = tmp_path / "study.json"
    resolved.write_text(study_json(study))
    assert load_study(resolved) == study


def test_an_arm_changes_its_own_runs_only():
    before = parse_study(SMOKE).runs()
    after = parse_study(changed("arms.cfm.training", {"lr": 1e-5})).runs()
    assert after["cfm-s0"].training.lr == 1e-5
    assert after["cfm-s0"] != before["cfm-s0"]
    assert after["stablevm-va-s0"] == before["stablevm-va-s0"]


def test_adding_a_seed_leaves_the_runs_of_other_seeds_as_they_are():
    before = parse_study(SMOKE).runs()
    after = parse_study(changed("training.seeds", [0, 1])).runs()
    assert set(after) == {"cfm-s0", "cfm-s1", "stablevm-va-s0", "stablevm-va-s1"}
    assert all(after[name] == run for name, run in before.items())


def test_milestones_and_samplers_make_the_sets_of_images():
    study = changed("training.milestones", [5, 10])
    study["sampling"]["samplers"]["sde"] = {"solver": "euler_maruyama"}
    study["sampling"]["arms"] = {"sde": ["cfm"]}
    sets = parse_study(study).sample_sets()
    assert len(sets) == 3 * 2 + 3  # three steps: ode for both arms, sde for one
    assert ("cfm-s0", 20, "sde") in sets
    assert ("stablevm-va-s0", 20, "sde") not in sets


def with_curve(folder: Path, study: dict, **split: float):
    """The study as its jobs read it, from results/<study>, once the curve of its latents is there."""
    (folder / "variance").mkdir(exist_ok=True)
    rows = [
        f"latents,64,{law},{value},{split['low']},{split['high']}"
        for law, value in (("noise", 0.9), ("empirical", split["xi"]))
    ]
    (folder / "variance" / "latents.split_point.csv").write_text("\n".join(["source,dimension,law,xi,low,high", *rows]))
    (folder / "study.json").write_text(study_json(parse_study(study)))
    return load_study(folder / "study.json")


def test_auto_is_the_split_point_of_the_empirical_distribution_with_its_interval(tmp_path):
    study = changed("arms.stablevm-va.alignment.xi", "auto")
    found = with_curve(tmp_path, study, xi=0.61234, low=0.6004, high=0.62)
    run = found.runs()["stablevm-va-s0"]
    assert run.alignment
    assert run.alignment.xi == 0.612
    assert run.stablevm
    assert run.stablevm.t_min == 0.0
    assert run.intervals == {"alignment.xi": (0.6, 0.62)}
    assert "xi = 0.612 (split point of the latents, 0.6 to 0.62)" in alignment_text(found.arms["stablevm-va"])
    assert "t >= 0," in target_text(found.arms["stablevm-va"])
    # An interval is no setting of an arm without auto: its records are as they always were.
    assert "intervals" not in settings_of(found.runs()["cfm-s0"])
    assert "intervals" not in settings_of(run)  # another machine's last bits train nothing again


def test_auto_stays_until_the_curve_is_there():
    study = parse_study(changed("arms.stablevm-va.stablevm.t_min", "auto"))
    assert '"t_min": "auto"' in study_json(study)
    assert "t >= auto," in target_text(study.arms["stablevm-va"])


def test_auto_where_no_time_has_low_variance(tmp_path):
    """StableVM is then used at all times; an alignment would have no time at all."""
    split = {"xi": 0.0, "low": 0.0, "high": 0.0}
    run = with_curve(tmp_path, changed("arms.stablevm-va.stablevm.t_min", "auto"), **split).runs()["stablevm-va-s0"]
    assert run.stablevm
    assert run.stablevm.t_min == 0
    with pytest.raises(UserError, match=r"^arms\.stablevm-va\.alignment\.xi: auto, but the curve in .* no regime"):
        with_curve(tmp_path, changed("arms.stablevm-va.alignment.xi", "auto"), **split)


def test_a_damaged_split_point_is_named(tmp_path):
    study = changed("arms.stablevm-va.alignment.xi", "auto")
    with pytest.raises(UserError, match=r"latents\.split_point\.csv: is damaged; delete it"):
        with_curve(tmp_path, study, xi="x", low=0, high=1)


def test_a_key_that_stands_twice_is_refused_by_its_line(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("name: twice\ntraining:\n  steps: 20\n  batch: 32\n  steps: 30\n")
    with pytest.raises(UserError, match=r"study\.yaml: line 5: the key 'steps' stands twice"):
        load_study(file)


def test_what_overrides_a_merged_key_stands_once(tmp_path):
    """The section that is read first merges one that merges another and overrides its rate."""
    file = tmp_path / "study.yaml"
    one = "x: {label: X, training: &one {steps: 7, batch: 32}}"
    other = "y: {label: Y, training: &other {<<: *one, steps: 9}}"
    sampling = "sampling: {main: ode, samplers: {ode: {}}}"
    file.write_text(f"name: a\narms:\n  {one}\n  {other}\n{sampling}\ntraining: {{<<: *other}}\n")
    training = load_study(file).training
    assert (training.steps, training.batch) == (9, 32)


def test_the_committed_schema_is_that_of_the_code():
    # If this fails: stablevelocity schema --output config/study.schema.json
    assert (CONFIG / "study.schema.json").read_text() == study_schema()
