"""The house rules: reading order, light imports, names, sizes."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ect
from ect import (
    consistency,
    experiment,
    importers,
    limit,
    network,
    objective,
    ode,
    registry,
    sampler,
    schedule,
    sources,
)

ROOT = Path(ect.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
ORDER = [
    "schedule",
    "registry",
    "plugins",
    "config",
    "dataset",
    "recipe",
    "published",
    "questions",
    "mistakes",
    "inherit",
    "cells",
    "checks",
    "whole",
    "reference",
    "study",
    "jobs",
    "plan",
    "machine",
    "process",
    "dropout",
    "network",
    "kernels",
    "native",
    "unet2d",
    "consistency",
    "ode",
    "objective",
    "limit",
    "sampler",
    "checkpoint",
    "progress",
    "crash",
    "running",
    "pictures",
    "folders",
    "sources",
    "prepared",
    "data",
    "drawing",
    "experiment",
    "importers",
    "meter",
    "state",
    "parallel",
    "train",
    "samples",
    "features",
    "classifier",
    "pretrained",
    "metrics",
    "evaluate",
    "trace",
    "search",
    "export",
    "model",
    "runs",
    "report",
    "status",
    "show",
    "verify",
    "given",
    "lease",
    "looking",
    "reporting",
    "__main__",
]
each_file = pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(ROOT)) for p in FILES])


def imports(path):
    """The parts of ect that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for name in (alias.name for alias in node.names):
                if name.startswith("ect."):
                    yield name.split(".")[1]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            if node.module == "ect":
                yield from (a.name for a in node.names if not a.name.startswith("__"))
            elif node.module.startswith("ect."):
                yield node.module.split(".")[1]


def part(path):
    """The part of the reading order to which a file belongs: a file, or a folder of files."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@each_file
def test_files_import_only_from_above(path):
    if part(path) == "__init__":
        assert list(imports(path)) == ["model"]  # by `load`, when it is called
        return
    place = ORDER.index(part(path))
    above = set(ORDER[:place]) | ({part(path)} if path.parent != ROOT else set())
    assert set(imports(path)) <= above


def test_the_reading_order_is_the_docstrings():
    assert re.findall(r"^`(\w+)`", ect.__doc__, re.MULTILINE) == ORDER[:-1]


LIGHT = (
    "", "plugins", "reference", "study", "plan", "registry", "schedule", "sources", "running",
    "status", "verify", "given", "lease", "crash",
)  # fmt: skip


@pytest.mark.parametrize("module", [f"ect.{name}".rstrip(".") for name in LIGHT])
def test_config_loads_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    env = {"PYTHONPATH": ":".join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def test_help_loads_no_torch():
    code = (
        "import sys; from ect import __main__\n"
        "try: __main__.main(['--help'])\n"
        "except SystemExit as end: sys.exit(end.code or 'torch' in sys.modules)"
    )
    env = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, check=False, capture_output=True)
    assert done.returncode == 0 and b"tabulate" in done.stdout


def test_registry_names_are_the_tables():
    tables = {
        "PROCESSES": experiment.PROCESSES,
        "PARAMETERIZATIONS": consistency.PARAMETERIZATIONS,
        "ARCHITECTURES": network.STYLES,
        "C_NOISE": consistency.C_NOISE,
        "PRIORS": objective.PRIORS,
        "TARGETS": {"own": None} | ode.STEPS,
        "DISTANCES": objective.DISTANCES,
        "WEIGHTS": objective.WEIGHTS,
        "SAMPLERS": sampler.SAMPLERS,
        "SOURCES": sources.SOURCES,
        "FORMATS": importers.FORMATS,
    }
    for name, table in tables.items():
        assert getattr(registry, name) == tuple(table), name


def test_the_maps_that_end_in_r_equal_t_are_those_with_a_loss_of_their_own():
    assert tuple(limit.OBJECTIVES) == schedule.LIMITS


def test_every_extractor_and_optimizer_of_the_registry_exists():
    import torch

    from ect import classifier, pretrained

    networks = {"classifier": classifier.extractor}
    for name in registry.EXTRACTORS:
        assert callable(networks.get(name) or getattr(pretrained, name))
    found = []
    for name in registry.OPTIMIZERS:
        options = {"name": name, "lr": 0.1, "betas": [0.8, 0.9]}
        weights = [torch.zeros(3, requires_grad=True)]
        found.append(type(experiment.make_optimizer(options, weights)).__name__.lower())
    assert found == list(registry.OPTIMIZERS)


def test_schedule_options_are_the_keywords_of_each_map():
    for name, function in schedule.SCHEDULES.items():
        options = registry.schedule_options(name)
        assert list(options) == list(function.__annotations__)
        for kind, default in options.values():
            assert kind in (int, float) and isinstance(default, kind)


@each_file
def test_sizes(path):
    """No function over 50 lines, no file over 300, no line over 100 columns."""
    lines = path.read_text().splitlines()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = [
        f"{path.name}:{node.lineno} {node.name}"
        for node in ast.walk(ast.parse("\n".join(lines)))
        if isinstance(node, functions) and node.end_lineno - node.lineno + 1 > 50
    ]
    wide = [f"{path.name}:{i}" for i, line in enumerate(lines, 1) if len(line) > 100]
    assert long + wide == [] and len(lines) <= 300
