"""Words of a study and of the site file are text: none becomes a command, a path outside or a wildcard."""

import re
from pathlib import Path

import pytest
import yaml
from project import ROOT, Workflow, copy_project

pytestmark = pytest.mark.workflow

COMMAND = "a`touch PWNED`"
# tests/test_study.py has more of them; here for the two ways that a study is read.
BAD = [("study", COMMAND), ("sampler", COMMAND), ("arm", "../../evil"), ("arm", "{x}")]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Workflow:
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    return Workflow(folder)


def study_with(project: Workflow, **sections) -> str:
    """The smoke study with other sections, as a file of the project."""
    study = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()) | sections
    (project.folder / "study.yaml").write_text(yaml.safe_dump(study))
    return "study.yaml"


def files_around(project: Workflow) -> set[Path]:
    """All but what Snakemake and Python keep for themselves: who imports a module first leaves its bytecode."""
    own = {".snakemake", "__pycache__"}
    return {path for path in project.folder.parent.rglob("*") if not own & set(path.parts)}


def named(kind: str, name: str) -> dict:
    if kind == "study":
        return {"name": name}
    if kind == "arm":
        return {"arms": {name: {"label": "x"}}, "sampling": {"main": "ode", "samplers": {"ode": {}}}}
    return {"sampling": {"main": name, "samplers": {name: {}}}}


@pytest.mark.parametrize("kind, name", BAD)
def test_a_name_that_is_no_plain_word_is_refused_before_any_job(project, kind, name):
    file = study_with(project, **named(kind, name))
    before = files_around(project)
    for command in (["stablevelocity", "check", file], ["snakemake", "--configfile", file, "--", "all"]):
        done = project.run(*command)
        assert done.returncode != 0
        said = [line for line in (done.stdout + done.stderr).splitlines() if "profile" not in line]
        assert len(said) == 1, said
        assert re.match(r"error: .*(name|arms|samplers): String should match pattern .*, given ", said[0])
    assert files_around(project) == before


def test_every_field_of_a_shell_line_is_quoted(project):
    done = project.run("python", "-c", FIELDS)
    assert done.returncode == 0, done.stderr
    fields = done.stdout.split()
    assert len(fields) > 150
    assert [field for field in fields if not field.endswith(":q")] == []


FIELDS = """
import string
from pathlib import Path

for file in Path("workflow/rules").glob("*.smk"):
    lines = file.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.strip() == "shell:":
            depth = len(line) - len(line.lstrip())
            for text in lines[number + 1 :]:
                if text.strip() and len(text) - len(text.lstrip()) <= depth:
                    break
                for _, field, form, _ in string.Formatter().parse(text):
                    if field is not None:
                        print(f"{field}:{form}")
"""


def test_braces_in_labels_and_paths_are_no_wildcards(project):
    (project.folder / "batch{run}.npz").touch()
    file = study_with(
        project,
        arms={"cfm": {"label": "im{g} $x_{t}$ {run} {sampler}"}},
        evaluation={"extractor": "digits", "reference": "batch{run}.npz"},
        sampling={"main": "ode", "samplers": {"ode": {}}},
    )
    done = project.snakemake("-n", "--configfile", file, "--", "all")
    assert done.returncode == 0, done.stderr
    assert "report" in done.stdout


def test_braces_in_the_setup_of_a_site_are_the_shells(project):
    """Remote mode is how a job of SLURM starts its rule."""
    site = project.folder / "config" / "site.yaml"
    site.write_text(yaml.safe_dump({"setup": ["WORD=x; echo ${WORD}{run} > said # and no more", "true"]}))
    try:
        target = "results/smoke/data/images/train.index.csv"
        done = project.snakemake("--mode", "remote", "--cores", "1", "--configfile", "config/smoke.yaml", "--", target)
    finally:
        site.unlink()
    assert done.returncode == 0, done.stderr
    assert (project.folder / "said").read_text() == "x{run}\n"
    assert (project.folder / target).exists()


def test_a_word_of_the_site_file_that_could_be_more_is_refused(project):
    site = project.folder / "config" / "site.yaml"
    site.write_text(yaml.safe_dump({"account": "`touch PWNED`"}))
    try:
        done = project.snakemake("-n", "--configfile", "config/smoke.yaml", "--", "all")
    finally:
        site.unlink()
    assert done.returncode != 0
    said = [line for line in (done.stdout + done.stderr).splitlines() if "profile" not in line]
    assert len(said) == 1, said
    assert said[0].startswith("error: config/site.yaml: account: String should match pattern")
