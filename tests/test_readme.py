"""What README and the pages of docs/ print is what the published runs wrote."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "results" / "published"
PAGES = {page.name: page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
TABLES = sorted(PUBLISHED.glob("*/tables/*.md"))
each_page = pytest.mark.parametrize("page", PAGES.values(), ids=list(PAGES))


@pytest.mark.parametrize("path", TABLES, ids=["/".join(p.parts[-3:]) for p in TABLES])
def test_published_tables_are_printed(path):
    table = "\n".join(line for line in path.read_text().splitlines() if line.startswith("|"))
    assert table.count("\n") >= 3  # two rows or more
    assert any(table in page.read_text() for page in PAGES.values())


@each_page
def test_printed_distances_are_published_tables(page):
    blocks = re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE)
    published = [path.read_text() for path in TABLES]
    for block in blocks:
        if "FD" in block.splitlines()[0]:
            assert any(text.startswith(block) for text in published), block


@each_page
def test_figures_and_files_named_in_it_exist(page):
    targets = re.findall(r"\]\(([^)#:]+)[)#]", page.read_text())
    assert all((page.parent / target).exists() for target in targets)
    assert targets or page.name != "README.md"
