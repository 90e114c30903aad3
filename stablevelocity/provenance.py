"""What a result was made from: settings, inputs, code, versions, host; and hashes of the code.

A stage leaves it beside its first output, in `<output>.provenance.json`; `records.py` reads what lies in a study.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stablevelocity.errors import UserError
from stablevelocity.files import read_json, sha256, write_json

PACKAGE = Path(__file__).parent
SUFFIX = ".provenance.json"
# What these yield is named in each stage's settings anyway; cli only passes arguments on.
_STUDY = "settings experiment_settings pretrained_settings constraints load reading study values layout"
NOT_HASHED = {f"stablevelocity.{name}" for name in ("study", "cli", "cli.main", "errors")}
NOT_HASHED |= {f"stablevelocity.study.{name}" for name in _STUDY.split()}
VERSIONS = ("torch", "numpy", "diffusers", "timm", "torch-fidelity", "torchmetrics", "scikit-learn")


def code_hash(*modules: str) -> str:
    """Hash of `modules` and of all modules of this package that they import, directly or not.

    It is taken over the syntax trees without docstrings, so that only a change of what the code does counts. Where a
    module lies does not count: an import is hashed by what is imported, not by the module's name.
    """
    reached = set().union(*(_imports_of(module) for module in modules)) - NOT_HASHED
    return hashlib.sha256(b"".join(sorted({_digest(module) for module in reached}))).hexdigest()[:12]


def write_provenance(
    outputs: Sequence[Path], *, inputs: Iterable[Path], settings: str, code: str, command: list[str], processes: int = 1
) -> None:
    """Write beside `outputs[0]` what `outputs` were made from, and what they are.

    Files are named relative to the record's folder, so that a study can be copied; absolute paths stay.
    """
    folder, inputs = outputs[0].parent, list(inputs)
    write_facts(
        provenance_file(outputs[0]),
        {
            "command": command,
            "settings": settings,
            "code": code,
            "processes": processes,
            "verified": [],
            "inputs": {name_from(folder, path): sha256(path) for path in inputs},
            "outputs": {name_from(folder, path): file_state(path) for path in outputs},
            **environment(),
        },
    )


def write_facts(record: Path, facts: dict[str, Any]) -> None:
    """Write a record. A file that is what the record before it had keeps its time, if no input is newer: what was made
    from it need not be made again.
    """
    # There was none, or a damaged one.
    with contextlib.suppress(UserError, OSError, KeyError, TypeError, AttributeError):
        before = read_json(record, "outputs")["outputs"]
        newest = max((_written(record.parent / name) for name in facts["inputs"]), default=0)
        for name, state in facts["outputs"].items():
            old = before.get(name, {"sha256": ""})
            if old["sha256"] == state["sha256"] and old["mtime_ns"] >= newest:
                state["mtime_ns"] = old["mtime_ns"]
    write_json(record, facts)


def _written(path: Path) -> int:
    """When a file was written: as its record has it, since Snakemake touches what was made."""
    with contextlib.suppress(UserError, OSError, KeyError, TypeError):
        return read_json(provenance_file(path))["outputs"][name_from(path.parent, path)]["mtime_ns"]
    return path.stat().st_mtime_ns


def provenance_file(output: Path | str) -> Path:
    return Path(f"{output}{SUFFIX}")


def file_state(path: Path) -> dict[str, Any]:
    """What a file is, and when it was written: from the times Snakemake knows what follows from what."""
    state = path.stat()
    return {"sha256": sha256(path), "bytes": state.st_size, "mtime_ns": state.st_mtime_ns}


def name_from(folder: Path, path: Path) -> str:
    """The path as a record in `folder` has it."""
    return str(path) if path.is_absolute() else os.path.relpath(path, folder)


def environment() -> dict[str, Any]:
    return {
        "versions": {"python": platform.python_version(), **{v: importlib.metadata.version(v) for v in VERSIONS}},
        "host": f"{platform.system()} {platform.machine()}, {_processor()}",
        "device": _device(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _device() -> str:
    """The accelerator, if this process has loaded torch; to load it here would take seconds."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else "cpu"


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
def _parse(module: str) -> tuple[bytes, tuple[tuple[str, str, str], ...]]:
    """(syntax tree of a module without docstrings and imports of this package, those imports).

    An import is (module, name in it or "" for the module itself, name here).
    """
    file = _file(module)
    if file is None:
        raise ValueError(f"no module {module} in the package")
    tree = ast.parse(file.read_text())
    taken: list[tuple[str, str, str]] = []
    for node in ast.walk(tree):
        bodies = [getattr(node, field, None) for field in ("body", "orelse", "finalbody")]
        for body in [body for body in bodies if isinstance(body, list)]:
            if body and _is_docstring(body[0]) and (len(body) > 1 or node is tree):
                del body[0]
            for statement in [one for one in body if isinstance(one, ast.ImportFrom)]:
                if statement.module and not statement.level and f"{statement.module}.".startswith("stablevelocity."):
                    taken += [_source(statement.module, alias) for alias in statement.names]
                    body.remove(statement)
    return ast.dump(tree).encode(), tuple(sorted(taken))


def read_code() -> None:
    """Read the whole package, so that hashes in this process and its forks are of the code as it is now."""
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        _parse(".".join(parts[:-1] if parts[-1] == "__init__" else parts))


def _source(module: str, alias: ast.alias) -> tuple[str, str, str]:
    whole, here = f"{module}.{alias.name}", alias.asname or alias.name
    return (whole, "", here) if _file(whole) else (module, alias.name, here)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@functools.cache
def _digest(module: str) -> bytes:
    """Of what a module does and of what it imports from this package; nothing for one that only has a docstring."""
    tree, taken = _parse(module)
    if tree == ast.dump(ast.parse("")).encode() and not taken:
        return b""
    digest = hashlib.sha256(tree)
    for line in sorted(f"{'' if of in NOT_HASHED else _tree_digest(of)} {name} {here}" for of, name, here in taken):
        digest.update(line.encode())
    return digest.digest()


@functools.cache
def _tree_digest(module: str) -> str:
    return hashlib.sha256(_parse(module)[0]).hexdigest()


@functools.cache
def _imports_of(module: str) -> frozenset[str]:
    reached, waiting = set(), {module}
    while waiting:
        here = waiting.pop()
        if here not in reached:
            reached.add(here)
            ours = {of for of, _, _ in _parse(here)[1] if of != "stablevelocity"}
            # Importing a.b.c runs a.b as well.
            waiting |= ours | {of.rsplit(".", 1)[0] for of in ours if of.count(".") > 1}
    return frozenset(reached)
