"""Settings of then and of today: a key that is new and has its default changes nothing, all else does."""

import json

import pytest

from stablevelocity.study.changes import same_settings
from stablevelocity.study.settings import Training

THEN = {"lr": 1e-4, "model": {"depth": 2}, "betas": [0.9, 0.999], "samplers": {"ode": {"steps": 4}}}


@pytest.mark.parametrize(
    "changes, same",
    [
        ({}, True),
        ({"compile": Training.model_fields["compile"].default}, True),
        ({"compile": not Training.model_fields["compile"].default}, False),
        ({"lr": 2e-4}, False),
        ({"betas": [0.9, 0.99]}, False),
        ({"betas": [0.9, 0.999, 0.9]}, False),
        ({"model": {"depth": 3}}, False),
        ({"model": {"depth": 2, "name": None}}, True),
        ({"model": {"depth": 2, "name": "SiT-XL/2"}}, False),
        ({"samplers": {"ode": {"steps": 4}, "sde": {"steps": 4}}}, False),  # a name that the study gives
        ({"lr": None}, False),
    ],
)
def test_new_keys_at_their_defaults_are_no_change(changes: dict, same: bool) -> None:
    assert same_settings(json.dumps([THEN]), json.dumps([THEN | changes])) == same


def test_a_key_that_is_no_more_is_a_change() -> None:
    assert not same_settings(json.dumps([{"compile": False}]), json.dumps([{}]))


def test_what_is_no_json_is_the_same_when_it_is_equal() -> None:
    assert same_settings("abc", "abc")
    assert not same_settings("abc", "abd")
