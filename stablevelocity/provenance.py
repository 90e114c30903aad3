"""Where a result came from: hashes of the code that made it, versions, host."""

import ast
import functools
import hashlib
import importlib.metadata
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stablevelocity.files import write_json

PACKAGE = Path(__file__).parent
# What these yield is named in each rule's `params` anyway; cli only passes arguments on.
NOT_HASHED = {
    "stablevelocity.study",
    "stablevelocity.study.settings",
    "stablevelocity.study.pretrained_settings",
    "stablevelocity.study.constraints",
    "stablevelocity.study.load",
    "stablevelocity.study.reading",
    "stablevelocity.study.study",
    "stablevelocity.study.values",
    "stablevelocity.study.layout",
    "stablevelocity.cli",
    "stablevelocity.cli.main",
    "stablevelocity.errors",
}
VERSIONS = ("torch", "numpy", "diffusers", "timm", "torch-fidelity", "torchmetrics", "scikit-learn")


def code_hash(*modules: str) -> str:
    """Hash of `modules` and of all modules of this package that they import, directly or not.

    It is taken over the syntax trees without docstrings, so that only a change of what the code does
    counts: a comment does not re-train a model.
    """
    digest = hashlib.sha256()
    for module in sorted(set().union(*(_imports_of(module) for module in modules)) - NOT_HASHED):
        digest.update(module.encode())
        digest.update(_parse(module)[1])
    return digest.hexdigest()[:12]


def write_provenance(output: Path | str, **facts: Any) -> None:
    """Write `<output>.provenance.json`: the given facts, package versions, host and time."""
    write_json(f"{output}.provenance.json", {**facts, **environment()})


def environment() -> dict[str, Any]:
    return {
        "versions": {
            "python": platform.python_version(),
            **{v: importlib.metadata.version(v) for v in VERSIONS},
        },
        "host": f"{platform.system()} {platform.machine()}, {_processor()}",
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@functools.cache
def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        if names:
            return f"{names[0]} x {len(names)}"
    return platform.processor() or "unknown processor"


def _file(module: str) -> Path | None:
    base = PACKAGE.joinpath(*module.split(".")[1:])
    for file in (base / "__init__.py", base.with_suffix(".py")):
        if file.exists():
            return file
    return None


@functools.cache
def _parse(module: str) -> tuple[frozenset[str], bytes]:
    """(modules of this package that a module imports, its syntax tree without docstrings)."""
    file = _file(module)
    if file is None:
        raise ValueError(f"no module {module} in the package")
    tree = ast.parse(file.read_text())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module)
            imported.update(f"{node.module}.{alias.name}" for alias in node.names)
        body = getattr(node, "body", None)
        if isinstance(body, list) and len(body) > 1 and _is_docstring(body[0]):
            del body[0]
    ours = {name for name in imported if name.startswith("stablevelocity.") and _file(name)}
    # Importing a.b.c runs a.b as well.
    ours |= {name.rsplit(".", 1)[0] for name in ours if name.count(".") > 1}
    return frozenset(ours), ast.dump(tree).encode()


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@functools.cache
def _imports_of(module: str) -> frozenset[str]:
    found, waiting = set(), {module}
    while waiting:
        here = waiting.pop()
        if here not in found:
            found.add(here)
            waiting |= _parse(here)[0]
    return frozenset(found)
