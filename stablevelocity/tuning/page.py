"""One HTML file that opens offline: the arms side by side, their numbers, and where their steps stand."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image

from stablevelocity.files import atomic_write
from stablevelocity.tuning.compare import Comparison

TITLES = {
    "long": "long run",
    "base": "base, as many calls",
    "stablevs": "StableVS, xi 0.85",
    "tuned": "StableVS, tuned xi",
    "control": "control: base step, thinned grid",
    "grid": "free grid, base step",
}
#: Longer side of a picture in the page, in pixels.
SIDE = 512


def write_page(
    output: Path,
    title: str,
    sentence: str,
    comparison: Comparison,
    prompts: list[str],
    facts: dict[str, Any],
    skip_error: Sequence[float] = (),
) -> None:
    """`facts` are shown as name and value; `skip_error` is that of a recommendation, per step of the long run."""
    environment = Environment(
        loader=PackageLoader("stablevelocity.tuning"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    peak = max(skip_error, default=0.0) or 1.0
    long = comparison.rows[0]["sigmas"]
    html = environment.get_template("page.html.j2").render(
        title=title,
        sentence=sentence,
        rows=comparison.rows,
        titles=TITLES,
        has_lpips=not comparison.note,
        note=comparison.note,
        facts=facts,
        curve=[
            (level, value / peak) for level, value in zip(long[1:], skip_error, strict=False)
        ],  # of the level left out
        pictures=[
            (prompt, [(arm, _address(shown[i])) for arm, shown in comparison.pictures.items()])
            for i, prompt in enumerate(prompts)
        ],
    )
    with atomic_write(output) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _address(picture: np.ndarray) -> str:
    """A PNG as data address; of a video its middle frame."""
    frame = picture[len(picture) // 2] if picture.ndim == 4 else picture
    image, file = Image.fromarray(frame), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
