"""What Snakemake needs to know without loading anything heavy."""

import json
import shutil
import subprocess
import sys

import pytest

from stablevelocity.reporting import registry
from stablevelocity.reporting.results import Results
from stablevelocity.reporting.templates import TEMPLATES
from stablevelocity.study import parse_study, study_json
from stablevelocity.study.methods import comparisons, kind

from . import synthetic


def test_importing_the_registry_loads_nothing_heavy():
    heavy = "('torch', 'pandas', 'matplotlib', 'numpy', 'jinja2', 'scipy', 'diffusers')"
    code = f"import stablevelocity.reporting.registry, sys; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_names_are_unique_and_every_maker_exists():
    tables = [table for section in registry.SECTIONS for table in section.tables]
    figures = [figure for section in registry.SECTIONS for figure in section.figures]
    for products in (tables, figures):
        names = [product.name for product in products]
        assert len(names) == len(set(names))
        for product in products:
            assert callable(product.load())
            for name in product.published:
                assert (synthetic.PUBLISHED / name).exists()
    for section in registry.SECTIONS:
        assert (TEMPLATES / f"{section.name}.html.j2").exists()
        assert not section.has_view or callable(section.load("view"))
        assert not section.has_claims or callable(section.load("claims"))


def test_a_figure_reads_exactly_the_files_it_declares(tmp_path):
    """Each product is made from a folder that holds its declared inputs and nothing else."""
    study = synthetic.digits()
    full = synthetic.make(study, tmp_path / "full")
    for number, product in enumerate([*registry.tables(study).values(), *registry.figures(study).values()]):
        folder = tmp_path / str(number)
        for name in product.inputs(study):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(full / name, folder / name)
        published = folder / "published"
        published.mkdir()
        for name in product.published:
            shutil.copyfile(synthetic.PUBLISHED / name, published / name)
        assert product.load()(Results(study, folder, published)) is not None


def test_a_study_without_a_part_has_no_section_for_it():
    full, least = synthetic.digits(), synthetic.minimal()
    every = [section.name for section in registry.SECTIONS]
    assert [section.name for section in registry.sections(full)] == [name for name in every if name != "pretrained"]
    assert "toy" not in [section.name for section in registry.sections(least)]
    assert {"table1", "references", "alignment"} & set(registry.tables(least)) == set()
    assert {"figure2", "figure3", "figure1_references", "toy_error"} & set(registry.figures(least)) == set()


@pytest.mark.parametrize(
    "arm, method",
    [
        ({}, "SiT (CFM)"),
        ({"objective": "stablevm"}, "StableVM"),
        ({"objective": "stf"}, "STF"),
        ({"alignment": {"schedule": "uniform"}}, "REPA"),
        ({"alignment": {"schedule": "hard_high"}}, "REPA, high regime only"),
        ({"alignment": {"schedule": "snr"}}, "VA-REPA"),
        ({"objective": "stablevm", "alignment": {}}, "StableVM + VA-REPA"),
        ({"alignment": {"schedule": "uniform", "projector": "conv", "spatial_norm": 0.6}}, "iREPA"),
        ({"class_token": True, "alignment": {"schedule": "uniform"}}, "REG"),
    ],
)
def test_an_arm_is_named_by_its_settings_as_the_paper_names_it(arm, method):
    content = {"name": "x", "encoder": {"grid": 4}, "arms": {"a": {"label": "A", **arm}}}
    content["sampling"] = {"samplers": {"s": {}}, "main": "s"}
    assert kind(parse_study(content).arms["a"]).method == method


def test_comparisons_follow_the_arms_that_the_study_has():
    found = {name: (arm, against) for name, arm, against in comparisons(synthetic.digits())}
    assert found["stablevm"] == ("stablevm", "cfm")
    assert found["repa"] == ("repa", "cfm")
    assert found["repa-high"] == ("repa-high", "repa")
    assert found["repa-stable"] == ("stablevm-va", "repa")
    assert comparisons(synthetic.minimal()) == []


def test_arms_without_labels_are_compared_with_each_other_alone():
    study = synthetic.digits()
    content = study.model_dump(mode="json")
    content["arms"] |= {
        "stf": {"label": "STF", "objective": "stf"},
        "blind": {"label": "blind", "training": {"label_drop": 1.0}},
        "blind-vm": {"label": "blind vm", "objective": "stablevm", "training": {"label_drop": 1.0}},
    }
    content["sampling"]["samplers"]["blind"] = {"labels": "none"}
    told = [*study.arms, "stf"]
    content["sampling"]["arms"] = {name: told for name in study.sampling.samplers} | {"blind": ["blind", "blind-vm"]}
    found = {name: (arm, against) for name, arm, against in comparisons(parse_study(content))}
    assert found["stablevm-stf"] == ("stablevm", "stf")
    assert found["stablevm-unlabelled"] == ("blind-vm", "blind")
    assert not any({"blind", "blind-vm"} & set(pair) for name, pair in found.items() if name != "stablevm-unlabelled")


def settings_text(study, product):
    parts = registry.settings_of(study, product)
    return json.dumps([part.model_dump(mode="json") if hasattr(part, "model_dump") else part for part in parts])


def test_a_changed_setting_of_an_arm_changes_the_settings_of_training_products_only():
    """Their settings are a trigger of the workflow; what a product reads from files is another."""
    before = synthetic.digits()
    content = json.loads(study_json(before))
    content["arms"]["cfm"]["training"] = {"lr": 1e-5}
    after = parse_study(content)
    changed = {
        section.name
        for section in registry.sections(after)
        for product in (*section.tables, *section.figures)
        if settings_text(before, product) != settings_text(after, product)
    }
    assert changed == {"training"}


class Unread:
    """Stands in the place of a part of a study that nothing may read."""

    def __getattr__(self, name):
        raise AssertionError(f"{name} was read")


#: Of the sections whose settings are not whole parts of the study.
READ = {
    "conditions": {"images", "autoencoder", "encoder", "evaluation", "arms"},  # of arms: which numbers are "auto"
    "sampling": {"sampling", "arms", "training"},  # labels and names of runs
    "exact_flow": {"exact_flow", "sampling", "arms", "training"},
    "training": set(type(synthetic.digits()).model_fields) - {"variance", "toy", "exact_flow", "pretrained"},
}


@pytest.mark.parametrize("name", [section.name for section in registry.SECTIONS if section.name != "pretrained"])
def test_a_product_reads_no_part_of_the_study_that_is_not_among_its_settings(name, tmp_path):
    study = synthetic.digits()
    results = synthetic.make(study, tmp_path / "results")
    section = next(section for section in registry.SECTIONS if section.name == name)
    parts = [id(part) for part in section.settings(study)]
    read = READ.get(name) or {field for field in type(study).model_fields if id(getattr(study, field)) in parts}
    hidden = study.model_copy(update={field: Unread() for field in type(study).model_fields if field not in read})
    for product in (*section.tables, *section.figures):
        if product.inputs(study):
            product.load()(Results(hidden, results))
