"""The report: one HTML file that opens offline and asks nothing of any server.

Images are inlined, there is no script, and a content policy in the file forbids every request. All text is in
templates/.
"""

import base64
from pathlib import Path

from markupsafe import Markup

from stablevelocity import provenance
from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write, read_json
from stablevelocity.reporting import describe, history, registry
from stablevelocity.reporting.claims import headlines, overview
from stablevelocity.reporting.results import Results
from stablevelocity.reporting.spec import LAYOUT
from stablevelocity.reporting.templates import TEMPLATES, environment
from stablevelocity.reporting.text_table import published_table, text_table
from stablevelocity.study import Study

IMAGES = (".png", ".gif")
"""Of a section's files: what can be shown in the page."""


def make_page(study: Study, folder: Path, out: Path) -> None:
    """Write report.html from the finished tables, figures and claims.json in `folder`.

    Raises UserError when one of them is missing.
    """
    missing = [name for name in registry.page_inputs(study) if not (folder / name).exists()]
    if missing:
        raise UserError(
            f"{folder}: the report needs {missing[0]} (and {len(missing) - 1} more); run the workflow first"
        )
    results = Results(study, folder, tables=registry.tables(study))
    templates = environment(escape=True)
    templates.globals.update(study=study, results=results, layout=LAYOUT, images=_images(study, folder))
    templates.globals.update(text_table=text_table, published_table=published_table)
    sections = []
    for section in registry.sections(study):
        facts = section.load("view")(results) if section.has_view else {}
        text = templates.get_template(f"{section.name}.html.j2").render(facts)
        sections.append({"name": section.name, "title": section.title, "text": Markup(text)})
    claims = read_json(folder / LAYOUT.claims)
    html = templates.get_template("page.html.j2").render(
        scope=describe.scope_text(study),
        paper_scale=describe.paper_scale(study),
        style=Markup((TEMPLATES / "page.css").read_text()),
        overview=overview(claims),
        headlines=headlines(claims),
        claims=claims,
        sections=sections,
        study_hash=history.study_hash(study),
        package_hash=history.package_hash(),
        provenance=provenance.environment(),
        durations=history.durations(folder),
    )
    with atomic_write(out) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _images(study: Study, folder: Path) -> dict[str, str]:
    """Figures of the study, and images among the files of its sections, by name."""
    images = {name: folder / LAYOUT.figure(name, "png") for name in registry.figures(study)}
    images |= {name: folder / name for name in registry.files(study) if name.endswith(IMAGES)}
    return {name: _data_address(image) for name, image in images.items()}


def _data_address(image: Path) -> str:
    return f"data:image/{image.suffix[1:]};base64,{base64.b64encode(image.read_bytes()).decode('ascii')}"
