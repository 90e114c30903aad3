"""Links between pages, and references from the code to pages, have their targets."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from stablevelocity.cli.main import app

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "config/**/*.md", "benchmarks/*.md", "results/README.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)
SOURCES = sorted(
    path.relative_to(ROOT)
    for folder in ("stablevelocity", "workflow", "benchmarks", "config", "tests")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".smk", ".yaml", ".html", ".json", ".j2"} or path.name == "Snakefile"
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
REFERENCE = re.compile(r"docs/[\w/-]+\.md(?:#[\w-]+)?")
OLD_FORM = re.compile(r"\bPAPER[:,]? section|\bsections? \d", re.IGNORECASE)
"""How the code cited the paper before docs/paper.md had anchors; those numbers are nowhere any more."""


def prose(page: Path) -> str:
    """The text of a page without code, in which brackets are no links and hashes no headings."""
    without_blocks = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda code: re.sub(r"[\[\]()]", "", code[0]), without_blocks)


def anchors(page: Path) -> set[str]:
    """Explicit ids, and GitHub's for headings: lower case, no punctuation, hyphens for spaces, -1 for a second one."""
    text = prose(page)
    found = set(re.findall(r'\bid="([^"]+)"', text))
    seen: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, flags=re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if slug in seen else slug)
        seen[slug] = seen.get(slug, 0) + 1
    return found


def missing(target: str, folder: Path) -> str | None:
    """Why a link `target`, relative to `folder`, leads nowhere; None when it does lead somewhere."""
    name, _, anchor = target.partition("#")
    path = folder / name
    if not path.exists():
        return f"{target}: no such file"
    if anchor and anchor not in anchors(path):
        return f"{target}: no such anchor"
    return None


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_of_a_page_has_its_target(page: Path) -> None:
    links = LINK.findall(prose(ROOT / page))
    inside = [link if link[0] != "#" else page.name + link for link in links if not re.match(r"\w+:", link)]
    assert [problem for link in inside if (problem := missing(link, (ROOT / page).parent))] == []


def test_every_reference_of_the_code_to_a_page_has_its_target() -> None:
    references = {(str(source), name) for source in SOURCES for name in REFERENCE.findall((ROOT / source).read_text())}
    assert any(name.startswith("docs/paper.md#") for _, name in references)
    assert [(source, problem) for source, name in sorted(references) if (problem := missing(name, ROOT))] == []


def test_the_code_cites_the_paper_by_anchors_and_not_by_numbers() -> None:
    lines = ((source, line.strip()) for source in SOURCES for line in (ROOT / source).read_text().splitlines())
    assert [(str(source), line) for source, line in lines if OLD_FORM.search(line)] == []


def test_every_command_that_a_page_or_a_message_names_is_one() -> None:
    """`stablevelocity <verb>`, and the verb that an error says makes what is missing."""
    verbs = set(get_command(app).commands)
    named = re.compile(r"\bstablevelocity ([a-z]+(?:-[a-z]+)*)(?![\w.:/-])|as `([a-z-]+)` (?:trains|makes) it")
    found = {
        (str(source), verb)
        for source in [*PAGES, *SOURCES]
        for pair in named.findall((ROOT / source).read_text())
        if (verb := "".join(pair)) != "import"
    }
    assert len(found) > 50
    assert [(source, verb) for source, verb in sorted(found) if verb not in verbs] == []
