"""What pyproject.toml declares is what the code imports; the library works with its own dependencies alone."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NO_EXTRA = "none"
# What users import, by the extra that it takes.
PUBLIC = {
    NO_EXTRA: ("targets", "reference_bank", "alignment", "variance", "sampling", "interpolants", "gmm", "models.sit"),
    "schedulers": ("schedulers",),
    "evaluation": tuple(f"evaluation.{name}" for name in ("score", "similarity", "intervals", "image_sets")),
}
# Declared without an import that can be seen.
IMPORTED_BY = {
    "tensorboard": "torch.utils.tensorboard",
    "torchvision": "torchmetrics, for the network of LPIPS",
    "snakemake": "nothing: it is the command",
}
TOOLS = {"beartype", "import-linter", "pandas-stubs", "pre-commit", "pyright", "pytest-xdist", "ruff", "snakefmt"}
DISTRIBUTIONS = importlib.metadata.packages_distributions()


def declared(extra: str) -> set[str]:
    """Distributions of an extra, those of the extras that it names and of the library among them."""
    found = {Requirement(line).name for line in PROJECT["dependencies"]}
    for line in PROJECT["optional-dependencies"].get(extra, []):
        requirement = Requirement(line)
        if requirement.name == PROJECT["name"]:
            found |= set().union(*map(declared, requirement.extras))
        else:
            found.add(requirement.name)
    return {canonicalize_name(name) for name in found}


def distribution(module: str) -> str:
    return canonicalize_name(DISTRIBUTIONS[module][0])


def imports(file: Path) -> Iterator[str]:
    """Modules that a file imports, inside functions too; of the annotations' own imports only ours."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.exists()), None)


def reached(modules: set[str]) -> set[str]:
    """The distributions that some modules of the package need, by what they and their own imports import."""
    ours, outside, waiting = set(), set(), set(modules)
    while waiting:
        module = waiting.pop()
        ours.add(module)
        for name in imports(file_of(module) or ROOT / "missing"):
            top = name.split(".")[0]
            if top != "stablevelocity":
                outside.add(top)
            elif file_of(name) and name not in ours:
                waiting.add(name)
    return {distribution(name) for name in outside - set(sys.stdlib_module_names)}


def modules_of(folder: str) -> set[str]:
    files = (file.relative_to(ROOT).with_suffix("") for file in (ROOT / folder).rglob("*.py"))
    return {".".join(file.parts).removesuffix(".__init__") for file in files}


def test_the_pipeline_declares_what_the_package_imports() -> None:
    rules = "\n".join(
        file.read_text() for file in [ROOT / "workflow" / "Snakefile", *ROOT.glob("workflow/rules/*.smk")]
    )
    of_rules = {name for name in re.findall(r"^(?:from|import) (\w+)", rules, re.M) if name != "stablevelocity"}
    needed = reached(modules_of("stablevelocity"))
    needed |= {distribution(name) for name in of_rules - set(sys.stdlib_module_names)}
    assert declared("pipeline") - set(IMPORTED_BY) == needed - set(IMPORTED_BY)


@pytest.mark.parametrize("extra", PUBLIC)
def test_an_extra_declares_what_its_modules_import(extra: str) -> None:
    needed = reached({f"stablevelocity.{module}" for module in PUBLIC[extra]})
    optional = {"pandas"} if extra == NO_EXTRA else set()  # `VarianceCurve.table` says so
    assert needed - optional <= declared(extra)
    assert declared(extra) - declared(NO_EXTRA) - set(IMPORTED_BY) <= needed


def test_the_extra_dev_declares_what_tests_and_tools_import() -> None:
    files = [file for folder in ("tests", "benchmarks", "docs", ".ci") for file in (ROOT / folder).rglob("*.py")]
    beside = {file.stem for file in files} | {file.parent.name for file in files} | {"stablevelocity"}
    names = {name.split(".")[0] for file in files for name in imports(file)} - set(sys.stdlib_module_names) - beside
    needed = {distribution(name) for name in names if name in DISTRIBUTIONS}
    assert {name for name in names if name not in DISTRIBUTIONS} <= {"vulture"}  # of a check, not of a test
    assert needed <= declared("dev")
    assert declared("dev") - declared("pipeline") - TOOLS <= needed | {"vulture"}


def installed_with(names: set[str]) -> set[str]:
    """Some distributions and all that they require on this machine."""
    found, waiting = set(), set(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting |= {canonicalize_name(requirement.name)} - found
    return found


ALONE = """
import importlib, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

class OnlyAllowed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] in ALLOWED or name.startswith("_sysconfigdata"):
            return super().find_spec(name, path, target)

ALLOWED = set(sys.argv[1].split(",")) | set(sys.stdlib_module_names)
sys.meta_path[:] = [BuiltinImporter, FrozenImporter, OnlyAllowed]
for name in sys.argv[2:]:
    importlib.import_module(name)
"""


@pytest.mark.parametrize("extra", PUBLIC)
def test_the_modules_of_an_extra_can_be_imported_with_nothing_else_installed(extra: str) -> None:
    there = installed_with(declared(extra))
    allowed = {module for module, owners in DISTRIBUTIONS.items() if there & set(map(canonicalize_name, owners))}
    assert {"typer", "snakemake"}.isdisjoint(allowed)
    command = [sys.executable, "-c", ALONE, ",".join({*allowed, "stablevelocity"})]
    modules = [f"stablevelocity.{module}" for module in PUBLIC[extra]]
    done = subprocess.run([*command, *modules], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_line_without_the_pipeline_says_in_one_line_what_is_missing() -> None:
    there = installed_with(declared(NO_EXTRA))
    allowed = {module for module, owners in DISTRIBUTIONS.items() if there & set(map(canonicalize_name, owners))}
    script = ALONE + "importlib.import_module('stablevelocity.cli').main()"
    command = [sys.executable, "-c", script, ",".join({*allowed, "stablevelocity"})]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: typer is not installed; expected the environment of stablevelocity[pipeline]\n"
