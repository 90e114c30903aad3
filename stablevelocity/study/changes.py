"""Whether a result was made with the settings of today, whatever keys newer code has added to them.

Settings are compared as the JSON texts that lie beside the results, with all defaults in them: so a default that
changed is a change, and a key that did not exist yet is none while it has its default.
"""

import functools
import json
from collections import defaultdict
from typing import Any

from pydantic import TypeAdapter

from stablevelocity.study import pretrained_settings as _pretrained  # noqa: F401 (its sections are asked for)
from stablevelocity.study.settings import Section


def same_settings(then: str, now: str) -> bool:
    """Whether two texts mean the same; those that are no JSON only when they are equal."""
    if then == now:
        return True
    try:
        return _same(json.loads(then), json.loads(now))
    except ValueError:
        return False


def _same(then: Any, now: Any) -> bool:
    if isinstance(then, dict) and isinstance(now, dict):
        kept = all(key in now and _same(value, now[key]) for key, value in then.items())
        return kept and all(now[key] in _defaults()[key] for key in now.keys() - then.keys())
    if isinstance(then, list) and isinstance(now, list):
        return len(then) == len(now) and all(map(_same, then, now))
    return then == now


@functools.cache
def _defaults() -> dict[str, list[Any]]:
    """By name of a key: its defaults in the sections that have it."""
    defaults, waiting = defaultdict(list), [Section]
    while waiting:
        section = waiting.pop()
        waiting += section.__subclasses__()
        for name, field in section.model_fields.items():
            if not field.is_required():
                default = field.get_default(call_default_factory=True, validated_data={})
                defaults[name].append(TypeAdapter(Any).dump_python(default, mode="json"))
    return defaults
