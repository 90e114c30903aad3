"""From the bytes of a YAML file to plain values, and from pydantic's errors to one line that names the key."""

import difflib
import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import ValidationError

from stablevelocity.errors import UserError
from stablevelocity.files import read_text
from stablevelocity.study.settings import Arm, Section, Training

LARGEST = 2**20  # bytes of a study file
#: What other projects call a key.
SYNONYMS = {
    "learning_rate": "lr",
    "batch_size": "batch",
    "epochs": "steps",
    "iterations": "steps",
    "max_steps": "steps",
    "num_steps": "steps",
    "ema_decay": "ema",
    "resolution": "size",
    "cfg_scale": "guidance",
    "guidance_scale": "guidance",
}


class _Loader(yaml.SafeLoader):
    """YAML whose mappings name no key twice (the second would silently win), with the line of what cannot be read."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()  # of what is written there: what a merge brings later may be overridden
        for key, _ in node.value:
            line = f"line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{line}: a key should be text, given a {key.id}")
            if key.value in seen:
                raise UserError(f"{line}: the key {given(key.value)} stands twice")
            seen.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, OverflowError):
            raise UserError(f"line {node.start_mark.line + 1}: cannot be read, given {given(node.value)}") from None

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if node.tag.endswith((":int", ":float")) and re.match(r"[-+]?(0[0-9]|[0-9_]+:)", str(value)):
            raise ValueError  # YAML 1.1 takes 24:00 for 1440 and 010 for 8
        return value


def read_yaml(path: Path) -> Any:
    """The content of a YAML or JSON file. Raises UserError, with the line, when it is not YAML or repeats a key."""
    text = read_text(path, LARGEST)
    try:
        return yaml.load(text, _Loader)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an escape of no letter
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}:{where} is not YAML ({shown(getattr(error, 'problem', error))})") from None


def first_problem(error: ValidationError, model: type[Section] | None = None) -> str:
    """The first problem of a pydantic error in one line: key, problem, what was given; `model` knows the keys."""
    problems = error.errors(include_url=False, include_context=False)
    first = problems[0]
    location = first["loc"]
    if location[-1:] == ("[key]",):  # a key that is no name; it is the input
        location = location[:-2]
    where = ".".join(shown(part) for part in location)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        close = model and _closest(model, tuple(map(str, first["loc"])))
        message = "no such key" + (f"; did you mean {close!r}?" if close else "")
    elif first["type"] not in ("value_error", "missing"):
        message += f", given {given(first['input'])}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    # A check of a whole section starts its message with the key that it is about.
    separator = "." if where and first["type"] == "value_error" and message.partition(":")[0].isidentifier() else ": "
    return f"{where}{separator}{message}{more}" if where else f"{message}{more}"


_REPR = reprlib.Repr()
_LIMITS = {"maxlevel": 3, "maxdict": 4, "maxlist": 6, "maxstring": 80, "maxother": 80, "maxlong": 30}
for _limit, _most in _LIMITS.items():
    setattr(_REPR, _limit, _most)


def given(value: Any) -> str:
    """A value for an error line: what is long, deep or refers to itself is cut."""
    try:
        return shortened(_REPR.repr(value))
    except ValueError:
        return "a number of more digits than are shown"


def shown(key: Any) -> str:
    """A key for an error line, whatever it holds."""
    text = str(key)
    return shortened(text if text.isprintable() else repr(text))


def shortened(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."


def _closest(model: type[Section], location: tuple[str, ...]) -> str | None:
    """What may be meant by an unknown key: one spelt like it in its section, or that key of another section, in full.

    `arms.cfm.lr` is answered by `arms.cfm.training.lr`.
    """
    *section, key = location
    paths = list(_paths(model))
    siblings = [path[-1] for path in paths if len(path) == len(location) and _agreeing(path, section) == len(section)]
    key = SYNONYMS.get(key, key)
    if close := difflib.get_close_matches(key, siblings, 1):
        return close[0]
    elsewhere = [path for path in paths if path[-1] == key]
    if not elsewhere:
        return None
    # Of keys that several sections have, the network's are meant most often.
    best = max(elsewhere, key=lambda path: (_agreeing(path, section), "training" in path, -len(path)))
    names = [*section[: _agreeing(best, section)], *best[_agreeing(best, section) :]]
    return ".".join("<name>" if name == "*" else name for name in names)


def _agreeing(path: tuple[str, ...], section: list[str]) -> int:
    """How many parts of a path are those of a section; "*" stands for any name."""
    same = [part in ("*", name) for part, name in zip(path[:-1], section, strict=False)]
    return same.index(False) if False in same else len(same)


def _paths(model: type[Section], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key that a file can have."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        inner: Any = Training if (model, name) == (Arm, "training") else field.annotation
        yield from _inside(inner, (*above, name))


def _inside(annotation: Any, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield from _paths(annotation, above)
    elif get_origin(annotation) is dict:
        yield from _inside(get_args(annotation)[1], (*above, "*"))
    else:
        for part in get_args(annotation):
            yield from _inside(part, above)
