"""The table of constraints: each has a study that it refuses, and lets the committed studies pass."""

from pathlib import Path

import pytest
from bad_inputs.studies import CONTRADICTIONS, PRETRAINED
from bad_inputs.study_keys import SMOKE, TINY, put

from stablevelocity.study import load_study, parse_study
from stablevelocity.study.constraints import CONSTRAINTS, image_counts
from stablevelocity.study.settings import Model
from stablevelocity.study.study import Study

CONFIG = Path(__file__).parents[2] / "config"


def refused_by(constraint) -> list[str]:
    """Keys that the constraint names in the table of contradictions, of the studies whose keys are right one by one."""
    keys = []
    for base, table in ((SMOKE, CONTRADICTIONS), (TINY, PRETRAINED)):
        for changes, _ in table:
            content = base
            for key, value in changes.items():
                content = put(content, tuple(key.split(".")), value)
            try:
                study = Study.model_validate(content)
            except ValueError:
                continue
            keys += [key for key, _ in constraint(study)]
    return keys


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_a_constraint_refuses_some_row_of_the_table_and_no_committed_study(constraint):
    assert refused_by(constraint)
    for name in ("digits", "smoke", "imagenet256", "pretrained", "pretrained-tiny"):
        assert list(constraint(load_study(CONFIG / f"{name}.yaml"))) == []


def test_the_digits_that_are_counted_are_those_that_are_read():
    from stablevelocity.data.images import Digits

    for held_out in (0.2, 0.01, 0.5, 0.9991):
        study = Study.model_validate(put(SMOKE, ("images", "held_out"), held_out))
        source = Digits(size=16, held_out=held_out, seed=0)
        assert image_counts(study) == (len(source.index("train")), len(source.index("heldout")))


@pytest.mark.parametrize("name", ["SiT-S/2", "SiT-XL/8"])
def test_sizes_are_those_of_the_network(name):
    from stablevelocity.models.sit import build_sit

    depth, width, _, patch = Model(name=name).sizes
    network = build_sit(name, input_size=8, num_classes=2)
    assert (len(network.blocks), network.pos_embed.shape[-1], network.patch_size) == (depth, width, patch)


def test_what_looks_like_a_contradiction_and_is_none():
    """A bank above the size of a class keeps later draws of its images; a rare checkpoint or log line is the last."""
    study = put(SMOKE, ("arms", "stablevm-va", "stablevm", "bank", "capacity"), 1000)
    study = put(study, ("training", "checkpoint_every"), 1000)
    study = put(study, ("training", "log_every"), 1000)
    study = put(study, ("training", "label_drop"), 0)
    assert parse_study(study).runs()["stablevm-va-s0"].stablevm.bank.capacity == 1000
