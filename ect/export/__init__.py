"""A model as a folder that draws images without this package.

It holds the weights, their description, a card, and the script `sample.py` of this folder with the
files of ect/ that it imports, word for word: the mathematics exists once.
"""

import ast
import os
import shutil
import tempfile
from pathlib import Path

import ect
from ect import checkpoint, machine
from ect.export import card
from ect.importers import ours

ROOT = Path(ect.__file__).parent
HEADER = "Written by `python -m ect export` of Easy Consistency Tuning {version}, commit {commit}"


def export(model, out):
    """Write the folder `out`: model.safetensors, config.json, README.md, sample.py and ect/.

    Raises `ValueError` if `model` is no model file, or `out` is there and not an empty folder.
    """
    model, out = Path(model), Path(out)
    _, about = ours.read(model)
    if "plugins" in about:
        own = ", ".join(about["plugins"])
        raise ValueError(f"{model}: its process is that of {own}; allowed: a process of ect")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"{out}: found something there; allowed: a new or an empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        shutil.copyfile(model, folder / "model.safetensors")
        checkpoint.write_json(folder / "config.json", about)
        (folder / "README.md").write_text(card.text(about, card.run_beside(model)))
        write_script(folder)
        os.replace(folder, out)


def write_script(folder):
    """Write sample.py and the package it imports, each file as it is here; the headers say so."""
    code = machine.source()
    header = HEADER.format(version=ect.__version__, commit=code["commit"] or "unknown")
    script = ROOT / "export" / "sample.py"
    (folder / "sample.py").write_text(f"# {header}.\n{script.read_text()}")
    note = f'"""{header}.\n\nEvery other file here is that of the pipeline, word for word."""\n'
    for path in closure(script):
        copy = folder / "ect" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    (folder / "ect" / "__init__.py").write_text(note)
    if (ROOT.parent / "LICENSE").is_file():  # none beside an installed package
        shutil.copyfile(ROOT.parent / "LICENSE", folder / "ect" / "LICENSE")


def closure(path):
    """The files of ect/ that a file imports, and that these import, in order of name."""
    found, waiting = set(), [path]
    while waiting:
        names = imported(waiting.pop())
        files = {file for n in names for file in (ROOT / f"{n}.py", *(ROOT / n).glob("*.py"))}
        fresh = {file for file in files - found if file.is_file()}
        found |= fresh
        waiting += fresh
    return sorted(found)


def imported(path):
    """The names of the parts of ect/ that a file imports itself."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "ect":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ect."):
            names.add(node.module.split(".")[1])
    return names
