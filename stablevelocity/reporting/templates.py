"""The templates of all text, with the functions that put numbers and settings in words."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stablevelocity.reporting import describe, format

TEMPLATES = Path(__file__).with_name("templates")


def environment(*, escape: bool) -> Environment:
    """`escape`: for HTML. A name that a template uses and nobody gives is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for module in (format, describe):
        made.globals.update({name: one for name, one in vars(module).items() if _is_of(one, module)})
    made.filters |= {"whole": format.whole, "typeset": _typeset}
    return made


def _typeset(text: Any) -> str:
    """`format.typeset`, of escaped text as well."""
    if isinstance(text, Markup):
        return Markup(format.typeset(text).replace("&gt;=", "≥").replace("&lt;=", "≤"))
    return format.typeset(text)


def _is_of(one: Any, module: Any) -> bool:
    return callable(one) and getattr(one, "__module__", "") == module.__name__
