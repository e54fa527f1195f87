"""A model as a folder that draws images without this package.

It holds the weights, their description, a card, and the script `sample.py` of this folder with the
files of ect/ that it imports, word for word: the mathematics exists once. Or it is a pipeline of
diffusers (`pipeline`), whose code is joined from the same files.
"""

import ast
import contextlib
import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

import ect
from ect.models.about import named
from ect.models.export import card, pipeline
from ect.models.importers import ours
from ect.models.load import samplers_beside
from ect.models.steps import CARRIED
from ect.runtime import checkpoint, record

ROOT = Path(ect.__file__).parent
HEADER = "Written by `python -m ect export` of Easy Consistency Tuning {version}, commit {commit}"


def export(model, out, diffusers=False):
    """Write the folder `out`: model.safetensors, config.json, README.md, sample.py and ect/; and
    sampling.json, the study's multistep samplers, where the model has been sampled by any. For
    `diffusers` README.md and the parts of a ConsistencyModelPipeline instead.

    Raises `ValueError` if `model` is no model file, or none that the folder could hold, or `out` is
    there and not an empty folder.
    """
    model, out = Path(model), Path(out)
    weights, about = ours.read(model)
    if "plugins" in about:
        plugins = ", ".join(about["plugins"])
        raise ValueError(f"{model}: its process is from {plugins}; allowed: a process of ect")
    checkpoint.require_folder(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(
            f"{out}: found a file or a non-empty folder; allowed: a new or an empty folder"
        )
    if diffusers:
        with named(model):
            pipeline.require(about)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        samplers = samplers_beside(model)
        if diffusers:
            with named(model):
                pipeline.write(folder, weights, about, samplers, header())
            write_licence(folder)
        else:
            shutil.copyfile(model, folder / "model.safetensors")
            checkpoint.write_json(folder / "config.json", about)
            if samplers:
                checkpoint.write_json(folder / CARRIED, samplers)
            write_script(folder)
        (folder / "README.md").write_text(
            card.text(model, about, samplers, out.name, diffusers), encoding="utf-8"
        )
        os.replace(folder, out)


def header():
    """What a file of code that goes along says of itself."""
    return HEADER.format(version=ect.__version__, commit=record.source()["commit"] or "unknown")


def write_script(folder):
    """Write sample.py and the package it imports, each file as it is here; the headers say so."""
    first = header()
    script = Path(__file__).with_name("sample.py")
    text = f"# {first}.\n" + script.read_text(encoding="utf-8")
    (folder / "sample.py").write_text(text, encoding="utf-8")
    note = f'"""{first}.\n\nEvery other file here is that of the pipeline, word for word."""\n'
    for path in closure(script):
        copy = folder / "ect" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    (folder / "ect" / "__init__.py").write_text(note, encoding="utf-8")
    write_licence(folder / "ect")


def write_licence(folder):
    """Write the licence of the code, where it is known."""
    if text := licence():
        (folder / "LICENSE").write_text(text, encoding="utf-8")


def licence():
    """The text of this project's licence, from the clone or from the installed package; None for a
    package that was copied without it."""
    if (ROOT.parent / "pyproject.toml").is_file():
        return (ROOT.parent / "LICENSE").read_text(encoding="utf-8")
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.distribution("ect-pipeline").read_text("licenses/LICENSE")
    return None


def closure(path):
    """The files of ect/ that a file imports, directly or not, sorted by name; with each the
    `__init__.py` of its folders."""
    files, waiting = set(), [path]
    while waiting:
        fresh = set(imported(waiting.pop())) - files
        files |= fresh
        waiting += fresh
    return sorted(files)


def imported(path):
    """The files of ect/ that a file imports directly."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ect":
            for alias in node.names:
                yield from files_of(f"{node.module}.{alias.name}".split(".")[1:])


def files_of(names):
    """The files that an import of `names`, below ect/, runs: for each folder its `__init__.py`."""
    for depth in range(1, len(names) + 1):
        path = ROOT.joinpath(*names[:depth])
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                yield file
