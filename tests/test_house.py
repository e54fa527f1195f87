"""The house rules: reading order, light imports, names, sizes."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ect
from ect import consistency, flowloss, flowmap, limit, objective, ode, registry, sampler, schedule
from ect.data import sources
from ect.models import build, importers
from ect.training import parts

ROOT = Path(ect.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
METHOD = (
    "schedule", "process", "consistency", "flowmap", "ode", "objective", "limit", "flowloss",
    "sampler",
)  # fmt: skip
# What the files of a wing, or the files at the top, may import beside one another: a wing, or one
# of its files.
ALLOWED = {
    "networks": ("runtime.device",),
    "runtime": (),
    "method": ("networks.dropout", "runtime.device"),
    "registry": ("schedule",),
    "plugins": ("schedule", "registry", "runtime.text", "runtime.crash"),
    "config": (
        "schedule", "registry", "plugins", "networks.widths", "runtime.text", "runtime.zips",
    ),
    "study": ("schedule", "config", "networks.widths", "runtime.versions"),
    "data": ("runtime", "registry", "config.dataset"),
    "models": ("method", "networks", "runtime", "registry", "plugins", "data"),
    "training": ("method", "networks", "runtime", "plugins", "data", "models"),
    "evaluation": ("method", "runtime", "plugins", "config.evaluation", "data", "models"),
    "report": (
        "schedule", "registry", "plugins", "runtime.checkpoint", "runtime.text", "config.published",
        "data.file", "data.npz",
    ),
    "runs": ("schedule", "runtime", "config", "study", "report.markup"),
    "cli": (
        "registry", "runtime", "config", "study", "data", "models", "training", "evaluation",
        "report", "runs",
    ),
    "__main__": ("runtime.forks", "runtime.forkserver", "cli.main"),
    "__init__": ("models.load",),  # inside `load`, when it is called
}  # fmt: skip
each_file = pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(ROOT)) for p in FILES])


def imports(path):
    """The modules of ect that a file imports, anywhere in it: 'wing.file', or a file at the top."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("ect.") for alias in node.names), path
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            if node.module.split(".")[0] == "ect":
                yield from _modules(node)


def _modules(node):
    folder = ".".join(node.module.split(".")[1:])
    for alias in node.names:
        module = f"{folder}.{alias.name}".strip(".")
        path = ROOT.joinpath(*module.split("."))
        if path.is_dir() or path.with_suffix(".py").exists():
            yield module
        elif folder:
            yield folder


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def wing(module):
    """The wing of a module; the method, for its nine files."""
    head = module.split(".")[0]
    return "method" if head in METHOD else head


@each_file
def test_text_is_utf_8_whatever_the_locale(path):
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    for call in calls:
        name = getattr(call.func, "attr", None)
        place = ast.unparse(call.func) if name in ("read_text", "write_text") else ""
        told = [keyword.arg for keyword in call.keywords] or "distribution" in place
        assert not place or told, f"{path.name}:{call.lineno}: no encoding"


def listed(docstring):
    """The names in the first column of a docstring's tables, in order."""
    return re.findall(r"^`(\w+)`", docstring, re.MULTILINE)


@each_file
def test_files_import_what_their_wing_may(path):
    """The order inside a wing is that of its docstring; a folder inside it counts as one file."""
    module = module_of(path) or "__init__"
    own = wing(module)
    order = METHOD if own == "method" else reading_order(own)
    for other in imports(path):
        if wing(other) != own:
            allowed = ALLOWED[own]
            fits = {other, ".".join(other.split(".")[:2]), wing(other)} & set(allowed)
            assert fits, f"{module} imports {other}; allowed: {', '.join(allowed)}"
        elif own != "method":
            here, there = module.split(".")[1:2], other.split(".")[1:2]
            if here != there and here:
                assert order.index(there[0]) < order.index(here[0]), f"{module} imports {other}"
        else:
            assert order.index(other) < order.index(module), f"{module} imports {other}"


def reading_order(name):
    """The files and folders of a wing, as its docstring lists them; none of a file at the top."""
    home = ROOT / name / "__init__.py"
    return listed(ast.get_docstring(ast.parse(home.read_text())) or "") if home.exists() else []


def test_the_docstring_of_the_package_lists_the_method_and_all_wings():
    wings = [name for name in ALLOWED if name not in ("method", "__main__", "__init__")]
    assert tuple(listed(ect.__doc__)[: len(METHOD)]) == METHOD
    assert sorted(listed(ect.__doc__)[len(METHOD) :]) == sorted(wings)
    entries = {path.name.removesuffix(".py") for path in ROOT.iterdir()} - {
        "__pycache__",
        "py.typed",
    }
    assert entries == {*METHOD, *wings, "__init__", "__main__"} and len(entries) <= 25


@pytest.mark.parametrize("name", [p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()])
def test_the_docstring_of_a_wing_lists_its_files(name):
    files = [path for path in (ROOT / name).iterdir() if path.is_dir() or path.suffix == ".py"]
    inside = {path.name.removesuffix(".py") for path in files}
    assert sorted(reading_order(name)) == sorted(inside - {"__init__", "__pycache__"})


def test_the_house_is_low():
    """The longest chain of imports, counted in wings and in files of the method; and no cycle."""
    arrows = {}
    for path in FILES:
        module = module_of(path) or "__init__"
        for other in imports(path):
            one, two = (m if wing(m) == "method" else wing(m) for m in (module, other))
            if one != two and module != "__init__":
                arrows.setdefault(one, set()).add(two)

    def floor(room, below=()):
        assert room not in below, f"{' -> '.join([*below, room])}"
        return 1 + max((floor(r, (*below, room)) for r in arrows.get(room, ())), default=0)

    assert max(map(floor, arrows)) <= 10


LIGHT = (
    "", "plugins", "registry", "schedule", "config.reference", "config.config", "study.cost",
    "data.sources", "runtime.progress", "runtime.lease", "runtime.crash", "runs.status",
    "runs.verify", "runs.curves", "cli.main",
)  # fmt: skip


def test_config_loads_no_torch():
    """None of them does, one after the other in one process."""
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
    code += "    assert 'torch' not in sys.modules, name"
    modules = [f"ect.{name}".rstrip(".") for name in LIGHT]
    env = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code, *modules], env=env, check=True)


WITH_SNAKEMAKE = {
    "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection",
    "yaml", "_yaml",
}  # fmt: skip
INSTALLED = """
import sys
def installed():
    files = ((name, str(getattr(m, "__file__", ""))) for name, m in list(sys.modules.items()))
    return {name.partition(".")[0] for name, file in files if "site-packages" in file}
before = installed()
IMPORTS
print(*installed() - before)
"""


def test_what_plans_a_study_needs_what_snakemake_brings():
    """What the rules import of this package, and the command line down to its help."""
    rules = [path.read_text() for path in (ROOT.parent / "workflow/rules").glob("*.smk")]
    lines = re.findall(r"^from ect\b.*$", "\n".join(rules), re.MULTILINE)
    lines += ["import ect.cli.main, ect.runs.status, ect.runs.verify, ect.study.cost"]
    code, env = INSTALLED.replace("IMPORTS", "\n".join(lines)), {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert len(lines) > 10 and {"pydantic"} <= set(done.stdout.split()) <= WITH_SNAKEMAKE


def test_help_loads_no_torch():
    code = (
        "import sys; from ect.cli import main\n"
        "try: main.main(['--help'])\n"
        "except SystemExit as end: sys.exit(end.code or 'torch' in sys.modules)"
    )
    env = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, check=False, capture_output=True)
    assert done.returncode == 0 and b"tabulate" in done.stdout


def test_registry_names_are_the_tables():
    tables = {
        "PROCESSES": build.PROCESSES,
        "PARAMETERIZATIONS": consistency.PARAMETERIZATIONS,
        "ARCHITECTURES": build.NETWORKS,
        "C_NOISE": consistency.C_NOISE,
        "PRIORS": objective.PRIORS,
        "JOINTS": flowmap.JOINTS,
        "TARGETS": {"own": None, "ema": None} | ode.STEPS,
        "DISTANCES": objective.DISTANCES,
        "WEIGHTS": objective.WEIGHTS,
        "SAMPLERS": sampler.SAMPLERS,
        "SOURCES": sources.SOURCES,
        "FORMATS": importers.FORMATS,
    }
    for name, table in tables.items():
        assert getattr(registry, name) == tuple(table), name


def test_the_maps_without_a_gap_are_those_with_a_loss_of_their_own():
    assert tuple(flowloss.OBJECTIVES) == schedule.TWO_TIMES
    assert (*limit.OBJECTIVES, *flowloss.OBJECTIVES) == schedule.CONTINUOUS_TIME


def test_every_extractor_and_optimizer_of_the_registry_exists():
    import torch

    from ect.evaluation import classifier, efficientnet, pretrained

    networks = {"classifier": classifier.extractor, "efficientnet": efficientnet.extractor}
    for name in registry.EXTRACTORS:
        assert callable(networks.get(name) or getattr(pretrained, name))
    found = []
    for name in registry.OPTIMIZERS:
        options = {"name": name, "lr": 0.1, "betas": [0.8, 0.9]}
        weights = [torch.zeros(3, requires_grad=True)]
        found.append(type(parts.make_optimizer(options, weights)).__name__.lower())
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
