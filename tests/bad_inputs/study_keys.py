"""Every key of a study in turn with values that are none of its kind: the list follows the keys that there are."""

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bad_inputs.case import Case
from stablevelocity.study import parse_study, study_json

CONFIG = Path(__file__).parents[2] / "config"
SMOKE = yaml.safe_load((CONFIG / "smoke.yaml").read_text())
TINY = yaml.safe_load((CONFIG / "pretrained-tiny.yaml").read_text())
#: A valid study with every section, each key written out.
WHOLE = json.loads(study_json(parse_study(SMOKE | {"pretrained": TINY["pretrained"]})))

NUMBERS = (True, "many", math.inf, -math.inf, math.nan, -1, 1e30, 10**30, [], {}, 2 + 0.5j)
WRONG: dict[type, tuple] = {
    bool: (1, 0, "yes", None, []),
    int: (*NUMBERS, 1.5, None),
    float: (*NUMBERS, None),
    str: (5, True, "", " ", "a\nb", "a\0b", "\x1b[31m", "x" * 5000, [], {}, None),
    list: ("x", {"a": 1}, [[]], [None], [{}], 3, None),
    type(None): ([], 2 + 0.5j, True, math.nan, "", "a\nb", "x\0"),
}


def leaves(content: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key), value


def put(content: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy of `content` with `value` at `path`."""
    changed = copy.deepcopy(content)
    node = changed
    for key in path[:-1]:
        node = node.setdefault(key, {})
    node[path[-1]] = value
    return changed


def cases() -> list[Case]:
    found = []
    for path, value in leaves(WHOLE):
        if isinstance(value, dict):
            continue  # an empty one: of names, which have a table of their own
        for number, wrong in enumerate(WRONG[type(value)]):
            if wrong is None and accepts_none(path):
                continue
            found.append(
                Case(
                    f"{'.'.join(path)}, {number}: {str(wrong)[:12]!r}",
                    lambda folder, path=path, wrong=wrong: parse_study(put(WHOLE, path, wrong)) and None,
                    path[-1],
                )
            )
    return found


def accepts_none(path: tuple[str, ...]) -> bool:
    from stablevelocity.errors import UserError

    try:
        parse_study(put(WHOLE, path, None))
    except UserError:
        return False
    return True


CASES = cases()
