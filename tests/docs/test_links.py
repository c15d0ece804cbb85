"""README.md and docs/: links lead somewhere, tables are whole, the book has every page, and targets of make are there."""

from __future__ import annotations

import ast
import re
import subprocess
from itertools import groupby
from pathlib import Path

import pytest

from support import ROOT

DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(DOCS.rglob("*.md")),
    *sorted((ROOT / "bindings").rglob("*.md")),
]


def text(page: Path) -> str:
    """Without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            lost.append(link)
    assert not lost


def cells(row: str) -> int:
    """A bar is part of a cell's text where a backslash stands before it."""
    return len(re.findall(r"(?<!\\)\|", row))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_are_whole(page: Path) -> None:
    """An empty line ends a table: rows after it are none, and all rows have as many cells as the heading."""
    lines = text(page).splitlines()
    tables = [list(rows) for is_row, rows in groupby(lines, lambda line: line.lstrip().startswith("|")) if is_row]
    for table in tables:
        assert len(table) > 1 and re.fullmatch(r"\s*\|( *:?-+:? *\|)+", table[1]), f"no heading: {table[0]}"
        for row in table:
            assert cells(row) == cells(table[1]), row


def test_the_book_has_every_page() -> None:
    listed = re.findall(r"\]\(([^)]+)\)", (DOCS / "SUMMARY.md").read_text("utf-8"))
    there = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if page.name != "SUMMARY.md"]
    assert sorted(listed) == sorted(there)


def test_pages_can_be_read_without_the_checkout() -> None:
    """README is short, and no page names a file of the machine that it was written on."""
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150
    for page in PAGES:
        assert not re.search(r"/(?:root|home|work)/", page.read_text("utf-8")), page


def test_the_page_of_python_has_every_public_name() -> None:
    page = (DOCS / "reference/python.md").read_text("utf-8")
    tree = ast.parse((ROOT / "bindings/python/libgraphpatch/__init__.py").read_text("utf-8"))
    lists = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    (names,) = map(ast.literal_eval, lists)
    assert [name for name in names if not name.startswith("_") and not re.search(rf"\b{name}\b", page)] == []


def test_the_page_of_variables_has_every_one_that_is_read() -> None:
    """Those that a user sets are read while the program runs; ``env!`` is read by the compiler."""
    page = (DOCS / "reference/environment.md").read_text("utf-8")
    files = [*(ROOT / "src").rglob("*.rs"), *(ROOT / "src").rglob("*.py"), *(ROOT / "bindings/python").rglob("*.py")]
    files = [file for file in files if "test" not in file.name and file.name != "build.rs"]
    named = {
        name for file in files for name in re.findall(r'(?<!env!\()"(GRAPHPATCH_[A-Z_]+)"', file.read_text("utf-8"))
    }
    assert "GRAPHPATCH_CACHE" in named
    assert sorted(name for name in named if f"`{name}`" not in page) == []


def test_the_make_targets_exist() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for page in PAGES:
        for target in set(re.findall(r"\bmake ([a-z-]{3,})`", page.read_text("utf-8"))):
            assert f"make {target} " in listed, f"{page}: make {target}"
