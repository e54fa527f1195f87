"""The site of `make docs`: strict, every link leads somewhere, nothing is from elsewhere."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

pytest.importorskip("mkdocs")
ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))


class Page(HTMLParser):
    """The anchors of a page, and what it links to and loads: (tag, address)."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors.add(found.get("id"))
        self.links += [(tag, found[key]) for key in ("href", "src") if found.get(key)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """{path: Page} of a strict build, which ends at a warning."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    return {path: Page(path) for path in folder.rglob("*.html")}


def test_every_page_is_there_and_found(site):
    names = {path.name for path in site}
    assert {page.with_suffix(".html").name for page in DOCS} | {"index.html"} <= names
    index = json.loads((next(iter(site)).parent / "search" / "search_index.json").read_text())
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {page.with_suffix(".html").name for page in DOCS} <= found


def test_links_lead_to_pages_files_and_anchors(site):
    for path, page in site.items():
        for _, link in page.links:
            target, _, anchor = link.partition("#")
            if path.name == "404.html" or re.match(r"\w+:|//", link):
                continue
            there = (path.parent / unquote(target)).resolve() if target else path
            assert there.is_file(), f"{path.name}: {link}"
            assert not anchor or unquote(anchor) in site[there].anchors, f"{path.name}: {link}"


def test_nothing_is_loaded_from_elsewhere(site):
    for path, page in site.items():
        assert not [link for tag, link in page.links if tag != "a" and "//" in link], path.name
    for style in next(iter(site)).parent.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", style.read_text()), style


def test_markup_and_formulas_are_rendered(site):
    assert (next(iter(site)).parent / "mathematics.html").read_text().count("<math") > 100
    for path in site:
        text = re.sub(r"<(pre|code)\b.*?</\1>", "", path.read_text(), flags=re.DOTALL)
        text = re.sub(r"<[^>]+>", "", text)
        assert not re.search(r"\]\(|\*\*|\\[a-z]+\{|^\|.*\|$|^[-*] ", text, re.MULTILINE), path.name
