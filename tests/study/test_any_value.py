"""Any value in any key of a study ends in a valid study or in one line; a valid study survives its own study.json."""

import datetime
import json
import os

import yaml
from bad_inputs.study_keys import WHOLE, leaves, put
from hypothesis import given, settings
from hypothesis import strategies as some

from stablevelocity.errors import UserError
from stablevelocity.study import parse_study, study_json
from stablevelocity.study.reading import read_yaml

# Some examples, the same ones each time; FUZZ=10000 is a longer hunt with others.
FUZZ = int(os.environ.get("FUZZ", "0"))
EXAMPLES = settings(max_examples=FUZZ or 300, deadline=None, derandomize=not FUZZ, database=None)

KEYS = [path for path, _ in leaves(WHOLE)]
SECTIONS = sorted({path[:k] for path in KEYS for k in range(1, len(path))})
SCALARS = some.one_of(
    some.none(),
    some.booleans(),
    some.integers(),
    some.integers(min_value=-(10**40), max_value=10**40),
    some.floats(),
    some.text(),
    some.binary(max_size=20),
    some.dates(min_value=datetime.date(1, 1, 1)),
    some.sampled_from(["digits", "cifar10", "folder", "euler", "cfm", "fp16", "SiT-B/2", "ode", "dinov2-base"]),
)
VALUES = some.recursive(
    SCALARS,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text() | SCALARS, inner, max_size=4),
    max_leaves=12,
)
NEAR = some.one_of(some.integers(-2, 70), some.floats(-0.5, 1.5), some.lists(some.integers(-1, 40), max_size=4))


def as_yaml(value):
    return yaml.safe_dump(value).encode("utf-8", "replace")


def one_line(content):
    """A valid study, or None where it ends in one line; any other exception is a fault."""
    try:
        return parse_study(content, "study.yaml")
    except UserError as error:
        line = str(error)
        assert line.isprintable(), line
        assert len(line) < 1000, line
        return None


def whole(study):
    """A valid study is used by everything that Snakemake asks of it, and is the same when it is read back."""
    text = study_json(study)
    assert parse_study(json.loads(text)) == study
    assert study_json(parse_study(json.loads(text))) == text
    assert {run for run, _, _ in study.sample_sets()} <= set(study.runs())
    assert set(study.sweep_runs()) <= set(study.runs())


@EXAMPLES
@given(path=some.sampled_from([*KEYS, *SECTIONS]), value=VALUES | NEAR)
def test_any_value_in_any_key(path, value):
    study = one_line(put(WHOLE, path, value))
    if study is not None:
        whole(study)


@EXAMPLES
@given(changes=some.lists(some.tuples(some.sampled_from(KEYS), NEAR), min_size=2, max_size=5))
def test_values_that_are_nearly_right_together(changes):
    content = WHOLE
    for path, value in changes:
        content = put(content, path, value)
    study = one_line(content)
    if study is not None:
        whole(study)


@EXAMPLES
@given(path=some.sampled_from([(), *SECTIONS]), key=some.text() | SCALARS, value=VALUES)
def test_any_key_in_any_section(path, key, value):
    content = put(WHOLE, (*path, key), value)
    study = one_line(content)
    if study is not None:
        whole(study)


@EXAMPLES
@given(content=VALUES)
def test_any_content(content):
    one_line(content)


@EXAMPLES
@given(content=some.binary(max_size=300) | some.text(max_size=300).map(str.encode) | VALUES.map(as_yaml))
def test_any_bytes_of_a_file(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "study.yaml"
    file.write_bytes(content)
    try:
        read = read_yaml(file)
    except UserError as error:
        line = str(error)
    else:
        one_line(read)
        return
    assert line.isprintable()
