"""The report: one HTML file that opens offline and asks nothing of any server.

Images are inlined, there is no script, and a content policy in the file forbids every request.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write, read_json
from stablevelocity.reporting import history, registry
from stablevelocity.reporting.claims import summary_lines
from stablevelocity.reporting.describe import (
    count_text,
    data_text,
    interval,
    model_text,
    number,
    paper_scale,
    scope_text,
)
from stablevelocity.reporting.products import load
from stablevelocity.reporting.source import PUBLISHED, Frame, Source
from stablevelocity.study import Study

IMAGES = (".png", ".gif")
"""Of a section's files: what can be shown in the page."""


@dataclass(frozen=True)
class Context:
    """What the text of a section can ask for."""

    study: Study
    source: Source

    def table(self, name: str) -> Frame | None:
        """A finished table, None when this study has no such table."""
        return self.source.table(name) if name in registry.tables(self.study) else None

    def published(self, name: str) -> Frame:
        return self.source.published_csv(name)

    def has_figure(self, name: str) -> bool:
        return name in registry.figures(self.study)


def make_page(study: Study, results: Path, out: Path, *, published: Path = PUBLISHED) -> None:
    """Write report.html from the finished tables, figures and claims.json of `results`.

    Raises UserError when one of them is missing.
    """
    missing = [name for name in registry.page_inputs(study) if not (results / name).exists()]
    if missing:
        raise UserError(
            f"{results}: the report needs {missing[0]} (and {len(missing) - 1} more); run the workflow first"
        )
    context = Context(study, Source(study, results, published))
    sections = [
        {"name": section.name, "title": section.title, "blocks": load(section.text)(context)}
        for section in registry.sections(study)
    ]
    figures = {name: _data_address(results / "figures" / f"{name}.png") for name in registry.figures(study)}
    figures |= {name: _data_address(results / name) for name in registry.files(study) if name.endswith(IMAGES)}
    environment = Environment(
        loader=PackageLoader("stablevelocity.reporting"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html").render(
        study=study,
        data=data_text(study),
        model=model_text(study),
        scope=scope_text(study),
        style=Markup(Path(__file__).with_name("templates").joinpath("report.css").read_text()),
        banner=banner(study),
        summary=summary_lines(results),
        claims=[_shown(claim) for claim in read_json(results / "claims.json")],
        sections=sections,
        figures=figures,
        history=history.of(study, results),
    )
    with atomic_write(out) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _data_address(image: Path) -> str:
    kind = image.suffix.removeprefix(".")
    return f"data:image/{kind};base64," + base64.b64encode(image.read_bytes()).decode("ascii")


def _shown(claim: dict[str, Any]) -> dict[str, Any]:
    """A claim with its numbers as text."""
    bounds = claim["interval"]
    value = float("nan") if claim["value"] is None else claim["value"]
    return {
        **claim,
        "shown_value": number(value),
        "shown_interval": interval(*bounds) if bounds else None,
        "shown_how": "; ".join(f"{name} {value}" for name, value in _shown_how(claim["how"]).items()),
        "mark": {"supported": "yes", "not supported": "no"}.get(claim["verdict"], "open"),
    }


def _shown_how(how: dict[str, Any]) -> dict[str, Any]:
    """Without what the sampler's own words repeat."""
    repeated = ("solver", "steps", "guidance") if "sampler" in how else ()
    return {name: value for name, value in how.items() if name not in repeated}


def banner(study: Study) -> dict[str, list[str]]:
    """What a study of this scale can and cannot show about the paper."""
    can = [
        "Statements about the mixtures are exact: their velocity is known in closed form.",
        "Every stage was really computed from the one before, on this study's data.",
    ]
    if not study.arms:
        can.append("Which part of StableVS is its grid and which its closed form, on the pipelines' own classes.")
        originals = "It trains nothing: what holds for these models need not hold for others."
        small = (
            "It cannot say how the originals fare: the models are tiny and were trained here for minutes; only signs "
            "and relative sizes of effects can be read beside the published values."
        )
        return {"can": can, "cannot": [small if study.pretrained and study.pretrained.tiny else originals]}
    cannot = [
        "It does not re-measure the large text-to-image and video models; their published values are shown as "
        "published.",
    ]
    seeds = len(study.training.seeds)
    if paper_scale(study):
        can.append("Model, data, length and metrics are the paper's: FID can be compared with its tables.")
        if seeds < 3:
            cannot.append(f"With {count_text(seeds, 'seed')}, small differences between arms stay open.")
        return {"can": can, "cannot": cannot}
    can += [
        "The direction of an effect, where it is larger than the spread over seeds at this scale.",
        "Which part of StableVS is its grid and which its closed form, on networks trained here.",
    ]
    features = "a digit classifier's" if study.evaluation.extractor == "digits" else "Inception's"
    cannot = [
        f"FID here uses {features} features and {study.sampling.images:,} samples of {data_text(study)}: its values "
        "cannot be compared with the paper's, only signs and relative sizes of effects.",
        f"It cannot say how large an effect is on ImageNet: {model_text(study)} trained for "
        f"{study.training.steps:,} steps is far smaller and shorter than SiT-XL/2 at 400,000.",
        f"With {count_text(seeds, 'seed')}, small differences between arms stay open: such a claim is "
        "called inconclusive, not refuted.",
        *cannot,
    ]
    return {"can": can, "cannot": cannot}
