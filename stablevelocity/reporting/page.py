"""The report: one HTML file that opens offline and asks nothing of any server.

Images are inlined, the only script sorts tables, and a content policy in the file forbids every request and any other
script. All text is in templates/.
"""

import base64
import io
import os
import re
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup
from PIL import Image

from stablevelocity import provenance
from stablevelocity.errors import UserError
from stablevelocity.files import read_json
from stablevelocity.records import code_table
from stablevelocity.reporting import describe, history, registry, stages
from stablevelocity.reporting.claims import MARKS, headlines, overview
from stablevelocity.reporting.origins import Origins
from stablevelocity.reporting.results import Results
from stablevelocity.reporting.spec import LAYOUT
from stablevelocity.reporting.templates import data_address, environment, write_page
from stablevelocity.reporting.text_table import text_table
from stablevelocity.study import Study
from stablevelocity.study.layout import PUBLISHED

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
    results, origins = Results(study, folder, tables=registry.tables(study)), Origins(folder)
    claims, durations = read_json(folder / LAYOUT.claims), history.durations(folder)
    templates = environment(escape=True)
    templates.globals.update(study=study, results=results, layout=LAYOUT, images=_images(study, folder))
    templates.globals.update(text_table=partial(text_table, origins=origins), origins=origins)
    sections = []
    for section in registry.sections(study):
        facts = section.load("view")(results) if section.has_view else {}
        text = templates.get_template(f"{section.name}.html.j2").render(facts)
        sections.append({"name": section.name, "title": section.title, "text": Markup(text)})
    write_page(
        out,
        "page.html.j2",
        templates,
        scope=describe.scope_text(study),
        paper_scale=describe.paper_scale(study),
        numbered={"figure": _numbered("figure", registry.figures(study)), "table": _numbered("table", results.tables)},
        claims=claims,
        counts=Counter(claim["verdict"] for claim in claims),
        marks=MARKS,
        evidence=_evidence(study, out),
        papers={name: _paper(results, name) for name in registry.paper_tables(study)},
        sections=sections,
        settings={name: _settings(study, name) for name in study.arms},
        study_hash=history.study_hash(study),
        package_hash=history.package_hash(),
        provenance=provenance.environment(),
        repository=_repository(out),
        durations=durations,
        codes=code_table(folder),
        timeline=history.timeline(folder),
        stage_of=stages.stage_of,
        stages=stages.graph(study, durations),
    )


def _evidence(study: Study, out: Path) -> dict[str, Any] | None:
    file = registry.evidence(study)
    if file is None:
        return None
    claims = read_json(file) if file.exists() else []
    link = Path(os.path.relpath(file.parent, out.parent)).as_posix()
    return {"name": file.parent.name, "link": link, "overview": overview(claims), "claims": headlines(claims)}


def _paper(results: Results, name: str) -> dict[str, Any]:
    """A table of the paper as it was written, and how many of its rows have which verdict."""
    verdicts = results.csv(LAYOUT.paper_table(name))["verdict"].str.partition(":")[0]
    text = (results.folder / LAYOUT.paper_table(name, "html")).read_text()
    return {"title": registry.PAPER_TABLES[name], "html": Markup(text), "verdicts": Counter(verdicts)}


def _numbered(kind: str, names: Iterable[str]) -> list[str]:
    """Numbers of the paper's tables or figures among these."""
    return sorted(name.removeprefix(kind) for name in names if name.startswith(kind) and name[len(kind) :].isdigit())


def _settings(study: Study, arm: str) -> str:
    """All that the runs of an arm were made with, as a study file has it."""
    chosen = {"arm": study.arms[arm], "training": study.arm_training(arm)}
    return yaml.safe_dump({name: part.model_dump(mode="json") for name, part in chosen.items()}, sort_keys=False)


def _repository(out: Path) -> str | None:
    """The way from the page to the repository, when it is written from there; links to its files begin with it."""
    return Path(os.path.relpath(Path.cwd(), out.parent)).as_posix() if PUBLISHED.exists() else None


def _images(study: Study, folder: Path) -> dict[str, dict[str, Any]]:
    """By name: figures of the study at both widths, and images among the files of its sections; size in pixels."""
    images = {}
    for name in registry.figures(study):
        svg = (folder / LAYOUT.figure(name, "svg")).read_text()
        images[name] = {
            "wide": _svg_address(svg),
            "narrow": _webp_address(folder / LAYOUT.figure(name, "column.png")),
            "size": [2 * round(float(side)) for side in re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2]],
            "is_drawing": "<image" not in svg,
        }
    for name in registry.files(study):
        if name.endswith(IMAGES):
            file = folder / name
            with Image.open(file) as image:
                images[name] = {"wide": data_address(file), "size": image.size}
    return images


def _webp_address(png: Path) -> str:
    """The same pixels in three quarters of the bytes."""
    file = io.BytesIO()
    with Image.open(png) as image:
        image.convert("RGB").save(file, "WEBP", lossless=True)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _svg_address(svg: str) -> Markup:
    """Three quarters of the length that base64 would have; for an attribute in double quotes."""
    for character, code in {"%": "%25", "'": "&apos;", '"': "'", "#": "%23", "&": "%26", "\n": " "}.items():
        svg = svg.replace(character, code)
    return Markup("data:image/svg+xml," + svg)
