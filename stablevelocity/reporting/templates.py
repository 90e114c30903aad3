"""The templates of all text, with the functions that put numbers and settings in words."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stablevelocity.files import atomic_write
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


def write_page(out: Path, name: str, templates: Environment | None = None, **facts: Any) -> None:
    """Write a page that extends plain.html.j2: no request, and no script but the one that sorts tables."""
    style, script = (Markup((TEMPLATES / file).read_text()) for file in ("page.css", "page.js"))
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    template = (templates or environment(escape=True)).get_template(name)
    html = template.render(facts, style=style, script=script, script_hash=script_hash)
    with atomic_write(out) as temporary:
        temporary.write_text(html, encoding="utf-8")


def data_address(file: Path) -> str:
    """A picture as part of a page."""
    return f"data:image/{file.suffix[1:]};base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"


def _typeset(text: Any) -> str:
    """`format.typeset`, of escaped text as well."""
    if isinstance(text, Markup):
        return Markup(format.typeset(text).replace("&gt;=", "≥").replace("&lt;=", "≤"))
    return format.typeset(text)


def _is_of(one: Any, module: Any) -> bool:
    return callable(one) and getattr(one, "__module__", "") == module.__name__
