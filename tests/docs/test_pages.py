"""What the pages point to is there: links, anchors, files and functions."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
NAMED = re.compile(r"`((?:edge|tests|config|docs|systemd)/[\w./-]*)`")
FUNCTIONS = re.compile(r"`(edge/[\w/]+\.py)`\S* → ((?:`[\w.]+`(?:, )?)+)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The page without its blocks of code, which hold no links."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(page: Path) -> frozenset[str]:
    """As GitHub makes them of the headings."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        found.append(slug + (f"-{found.count(slug)}" if slug in found else ""))
    return frozenset(found)


@cache
def functions(file: str) -> frozenset[str]:
    """Qualified names of the functions and classes in a file."""

    def walk(node: ast.AST, prefix: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield prefix + child.name
                inner = f"{prefix}{child.name}."
            yield from walk(child, inner)

    return frozenset(walk(ast.parse((ROOT / file).read_text()), ""))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_anchors_lead_somewhere(page: Path):
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", [*DOCS, ROOT / "CONTRIBUTING.md"], ids=name)
def test_the_files_that_a_page_names_are_there(page: Path):
    assert [file for file in NAMED.findall(page.read_text()) if not (ROOT / file).exists()] == []


@pytest.mark.parametrize("page", DOCS, ids=name)
def test_the_functions_that_a_page_names_are_there(page: Path):
    missing = [
        f"{file}: {function}"
        for file, names in FUNCTIONS.findall(page.read_text())
        for function in re.findall(r"`([\w.]+)`", names)
        if function not in functions(file)
    ]
    assert missing == []


def test_the_stream_path_names_functions():
    """So that the test above looks at something."""
    assert len(FUNCTIONS.findall((ROOT / "docs/stream-path.md").read_text())) > 100


def test_each_package_is_on_the_map():
    """A new package under edge/ has its line in the table of layers."""
    page = (ROOT / "docs/architecture.md").read_text()
    packages = {f"edge/{path.parent.name}/" for path in (ROOT / "edge").glob("*/__init__.py")}
    modules = {f"edge/{path.name}" for path in (ROOT / "edge").glob("*.py") if not path.name.startswith("__")}
    assert sorted(name for name in packages | modules if f"`{name}`" not in page) == []


def test_each_word_of_the_glossary_has_one_entry():
    words = re.findall(r"^- \*\*(.+?)\*\*", (ROOT / "docs/glossary.md").read_text(), flags=re.MULTILINE)
    assert len(words) > 80
    assert sorted(word for word in set(words) if words.count(word) > 1) == []
