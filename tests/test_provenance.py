"""The hash of a stage's code: it changes with what the stage runs, and with nothing else."""

import importlib

import pytest

import stablevelocity.provenance as provenance
from stablevelocity.reporting import registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package whose files may be edited; gives a function (module, old, new) that edits one."""
    import shutil

    copy = tmp_path / "stablevelocity"
    shutil.copytree(provenance.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    fresh = importlib.reload(provenance)
    monkeypatch.setattr(fresh, "PACKAGE", copy)

    def clear():
        for cached in (fresh._parse, fresh._imports_of, fresh._digest, fresh._tree_digest):
            cached.cache_clear()

    def edit(file: str, text: str):
        path = copy / file
        path.write_text(path.read_text() + text)
        clear()

    clear()
    edit.clear, edit.folder = clear, copy
    yield edit
    monkeypatch.undo()
    clear()


TRAINING = "stablevelocity.training.trainer"
FIGURES = "stablevelocity.reporting.figures"


def test_an_edit_of_what_a_stage_imports_changes_its_hash_only(package):
    training, figures = provenance.code_hash(TRAINING), provenance.code_hash(FIGURES)
    package("reference_bank.py", "\nEXTRA = 1\n")  # imported by the trainer through batches
    assert provenance.code_hash(TRAINING) != training
    assert provenance.code_hash(FIGURES) == figures


def test_an_edit_of_the_figures_does_not_touch_training(package):
    training, figures = provenance.code_hash(TRAINING), provenance.code_hash(FIGURES)
    package("reporting/figures.py", "\nEXTRA = 1\n")
    assert provenance.code_hash(FIGURES) != figures
    assert provenance.code_hash(TRAINING) == training


def test_an_edit_of_one_plot_touches_the_plots_of_its_section_only(package):
    products = [figure for section in registry.SECTIONS for figure in section.figures]
    products += [table for section in registry.SECTIONS for table in section.tables]
    modules = {product.module for product in products} | {*registry.claims_modules(), *registry.page_modules()}
    toy = "reporting.sections.toy.figures"
    assert toy in modules
    before = {module: provenance.code_hash(f"stablevelocity.{module}") for module in modules}
    package("reporting/sections/toy/figures.py", "\nEXTRA = 1\n")
    changed = {module for module in modules if provenance.code_hash(f"stablevelocity.{module}") != before[module]}
    assert changed == {toy}


def test_an_edit_of_the_sampling_code_touches_the_sweep_and_no_other_evaluation(package):
    jobs, sweep = "stablevelocity.evaluation.stages", "stablevelocity.evaluation.sweep_stage"
    before = provenance.code_hash(jobs), provenance.code_hash(sweep)
    package("sampling/generate.py", "\nEXTRA = 1\n")
    assert provenance.code_hash(jobs) == before[0]
    assert provenance.code_hash(sweep) != before[1]


def test_a_comment_changes_no_hash(package):
    training = provenance.code_hash(TRAINING)
    package("reference_bank.py", "\n# A remark.\n")
    assert provenance.code_hash(TRAINING) == training


def move(package, old: str, new: str):
    """Move a module, and say so wherever it is imported."""
    target = package.folder / f"{new.replace('.', '/')}.py"
    target.parent.mkdir(exist_ok=True)
    (target.parent / "__init__.py").touch()
    (package.folder / f"{old.replace('.', '/')}.py").rename(target)
    (old_parent, _, old_name), (new_parent, _, new_name) = (name.rpartition(".") for name in (old, new))
    as_module = f"from stablevelocity.{new_parent} import {new_name}"
    for file in package.folder.rglob("*.py"):
        text = file.read_text().replace(f"from stablevelocity.{old} import", f"from stablevelocity.{new} import")
        before = f"from stablevelocity{'.' if old_parent else ''}{old_parent} import {old_name}\n"
        file.write_text(text.replace(before, f"{as_module}\n"))
    package.clear()


@pytest.mark.parametrize(
    "old, new",
    [
        ("reference_bank", "mathematics.reference_bank"),
        ("targets", "mathematics.aims"),
        ("training.checkpoints", "training.kept.checkpoints"),  # imported as a module
    ],
)
def test_a_moved_module_changes_no_hash(package, old, new):
    before = provenance.code_hash(TRAINING)
    move(package, old, new)
    assert provenance.code_hash(TRAINING) == before
    package(f"{new.replace('.', '/')}.py", "\nEXTRA = 1\n")  # and it still counts
    assert provenance.code_hash(TRAINING) != before


def test_a_function_taken_from_another_module_changes_the_hash(package):
    """Though it has the same name where it is used."""
    file = package.folder / "training" / "batches.py"
    text = file.read_text()
    file.write_text(text + "\nfrom stablevelocity.files import sha256 as extra\n")
    package.clear()
    before = provenance.code_hash(TRAINING)
    file.write_text(text + "\nfrom stablevelocity.files import read_json as extra\n")
    package.clear()
    assert provenance.code_hash(TRAINING) != before


def test_a_process_that_has_read_the_code_goes_on_with_its_hashes(package):
    provenance.read_code()
    later = package.folder / "reference_bank.py"
    before = later.read_text()
    later.write_text(before + "\nEXTRA = 1\n")  # without `clear`: as another process would
    ran = provenance.code_hash(TRAINING)
    package.clear()
    edited = provenance.code_hash(TRAINING)
    later.write_text(before)
    package.clear()
    assert ran == provenance.code_hash(TRAINING) != edited


def test_an_unknown_module_is_an_error():
    with pytest.raises(ValueError, match=r"no module stablevelocity\.gone"):
        provenance.code_hash("stablevelocity.gone")
