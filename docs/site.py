"""What `mkdocs build` needs to know of these pages, which are written for a forge's Markdown.

README.md, CONTRIBUTING.md and CHANGELOG.md become pages; a file that a page links to outside of
docs/ comes along; a linked folder is named only. Anchors are those of GitHub. Formulas become
MathML, so nothing is loaded from another place.
"""

import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
SHOWN = (".png", ".svg", ".pdf")  # other files come as text, which every browser shows
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$((?:[^$\n]|\n(?!\n))+?)\$", re.DOTALL)
LIST = re.compile(r"^(?![-*|>#\s]|\d+\.).+\n(?=(?:[-*]|\d+\.) )", re.MULTILINE)


def on_config(config):
    """Anchors as GitHub makes them: `t -> r` is `t---r`."""
    config.mdx_configs["toc"] = {"slugify": slug, "permalink": False}


def slug(text, separator):
    """The anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", separator)


def on_files(files, config):
    """Add the pages at the top, and what pages link to."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    for file in list(files.documentation_pages()):
        for *_, target in LINK.findall(file.content_string):
            path = outside(file.src_uri, target.partition("#")[0])
            if path and (ROOT / path).is_file() and not files.get_file_from_path(place(path)):
                content = (ROOT / path).read_bytes()
                files.append(File.generated(config, place(path), content=content))
    return files


def outside(page, target):
    """The path from the top of what a page links to outside of docs/, or None."""
    if not target or "://" in target or target.startswith("mailto:"):
        return None
    top = page in PAGES.values()
    path = posixpath.normpath(posixpath.join("" if top else "docs", target))
    return None if path in PAGES or re.fullmatch(r"docs/[^/]+\.(md|ipynb)", path) else path


def place(path):
    """Where a file from outside of docs/ lies in the site."""
    return f"files/{path}" if path.endswith(SHOWN) else f"files/{path}.txt"


def on_page_markdown(markdown, page, config, files):
    """A page's text, for Python's Markdown."""
    parts = CODE.split(markdown)
    kept = "".join(part if i % 2 == 0 else f"\x02{i}\x03" for i, part in enumerate(parts))
    kept = FORMULA.sub(formula, LIST.sub(r"\g<0>\n", kept))
    text = re.sub("\x02(\\d+)\x03", lambda found: parts[int(found[1])], kept)
    return LINK.sub(lambda found: link(found, page.file.src_uri), text)


def formula(found):
    """A formula as MathML."""
    block, inline = found[1], found[2]
    return convert((block or inline).strip(), display="block" if block else "inline")


def link(found, page):
    """A link of a page, to where its target lies in the site."""
    image, text, target = found.groups()
    target, hash_, anchor = target.partition("#")
    path = outside(page, target)
    if path is None and target and "://" not in target:
        path = posixpath.normpath(posixpath.join("" if page in PAGES.values() else "docs", target))
        return f"{image}[{text}]({PAGES.get(path) or path.removeprefix('docs/')}{hash_}{anchor})"
    if path is None:
        return found[0]
    return f"{image}[{text}]({place(path)})" if (ROOT / path).is_file() else text
