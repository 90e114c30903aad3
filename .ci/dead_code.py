"""Prints every name of the package that nothing uses, and exits with 1 if there is one: `python .ci/dead_code.py`.

vulture finds names that no Python code uses, tests left out: what only a test calls is dead. Uses that it cannot see
are looked up here: the workflow's rules and profiles, the report's templates, functions that a `Product` names, keys
of records, and the public names that a page shows as code.
"""

import re
import sys
from pathlib import Path

from vulture import Vulture

ROOT = Path(__file__).parent.parent
CALLED_BY_FRAMEWORKS = ["@app.command", "@field_validator", "@model_validator"]
SET_FOR_OTHERS = ["found_inf", "model_config", "formatwarning", "rich_help_panel", "get_account_arg", "__signature__"]
SET_FOR_OTHERS += ["tempdir", "raiseExceptions", "external_attr", "APPDIRS"]
"""For torch's optimizers, pydantic, warnings, typer, Snakemake, its plugin, inspect, tempfile, logging, zipfile."""


def uses() -> set[str]:
    """Identifiers in code that is not Python, or in strings of it."""
    rules = [ROOT / "workflow/Snakefile", *ROOT.glob("workflow/*/*.smk"), *ROOT.glob("workflow/profiles/*/config.yaml")]
    templates = ROOT.glob("stablevelocity/reporting/templates/*")
    package = ROOT.glob("stablevelocity/**/*.py")
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    code = [file.read_text() for file in rules]
    code += [file.read_text() for file in templates]
    code += [name for file in package for name in re.findall(r'(?:Product\(\s*"|load\("|\[")(\w+)"', file.read_text())]
    code += [text for page in pages for text in re.findall(r"```.*?```|`[^`\n]+`", page.read_text(), re.DOTALL)]
    return {name for text in code for name in re.findall(r"\w+", text)}


def main() -> int:
    scanner = Vulture(ignore_decorators=CALLED_BY_FRAMEWORKS, ignore_names=SET_FOR_OTHERS)
    scanner.scavenge([str(ROOT / folder) for folder in ("stablevelocity", "benchmarks", "docs/figures")])
    used = uses()
    dead = [item for item in scanner.get_unused_code() if item.name not in used]
    for item in dead:
        print(f"{item.filename.relative_to(ROOT)}:{item.first_lineno}: unused {item.typ} {item.name}")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
