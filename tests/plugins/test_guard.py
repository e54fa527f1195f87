"""A plugin's code: what fails in it, or returns what it may not, is one line that names it; no file
beside a config hides a module."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ect.evaluation import evaluate
from ect.models import build, draw
from ect.training import parts
from tests.helpers.workflow import copy_workflow

ROOT = Path(__file__).parents[2]
BODY = "def own({}): {}"
ARGUMENTS = {"schedule": "t, progress", "weight": "s, r, sd", "sampler": "f, process, eps"}
ARGUMENTS |= {"features": "pixels"}
FAULTS = {  # the statement of the function, and what is said of it
    "exit": ("raise SystemExit(0)", "line 4: SystemExit: exit 0; allowed"),
    "exception": ("1 / 0", "line 4: ZeroDivisionError: division by zero"),
    "two lines, and an escape": ("raise ValueError('a\\n\\x1b[2J')", r"ValueError: a \x1b"),
    "recursion": ("own = lambda: own(); own()", "RecursionError"),
    "none": ("none = None; return none", "returned NoneType"),
    "number": ("return 0.0", "returned float"),
    "printing, and nothing": ("return print('hello')", "returned NoneType"),
    "another signature": ("own2 = lambda: 0; own2(1)", "TypeError"),
    "no such device": ("return t.to('nowhere')", "line 4: "),
}
ONES = "import torch; return torch.ones"
MORE = {
    "schedule": {
        "one for all": (f"{ONES}(1) * 0", "(1,) on cpu; allowed: floats (45,)"),
        "in place": ("t.mul_(0.5); return t * 0.5", "changes its arguments in place; allowed"),
        "integer": ("return t.long()", "returned torch.int64 (45,)"),
        "late": ("return t / 2 if progress < 1 else t * float('nan')", "r is nan at t = 1,"),
        "wide": ("return (t / 2).double()", "returned torch.float64 (3,)"),
        "meta": ("return t.to('meta')", "on meta; allowed"),
    },
    "weight": {
        "truth": ("return s > 0", "returned torch.bool (3,)"),
        "one for all": (f"{ONES}(())", "() on cpu; allowed: floats (3,)"),
        "in place": ("return s.mul_(2)", "changes its arguments in place"),
        "negative": ("return r - s", "is -0.009 at s = 0.01, r = 0.001; allowed: positive and"),
        "none of it": ("return s * 0", "is 0 at s = 0.01"),
        "infinite": ("return (s - r * 0) / 0", "is inf at s = 0.01"),
        "late": ("return 1.5 - r", "is -3.5 at s = 50, r = 5;"),
    },
    "sampler": {
        "noise": ("return eps", "(1, 4, 1, 8, 8); allowed: images (4, 1, 8, 8)"),
        "pixels": ("return eps[0].long()", "returned torch.int64"),
        "not finite": ("eps[0, :2] = float('nan'); return eps[0]", "2 of 4 images that are not"),
    },
    "features": {
        "one": ("return pixels[:, 0, 0, :1]", "have the shape (4, 1); allowed: (4, D), D >= 2"),
        "image": ("return pixels", "have the shape (4, 8, 8, 1)"),
        "words": ("return [['a', 'b']] * 4", "returned list"),
        "not finite": ("return pixels[:, 0, :, 0] * float('nan')", "not finite real numbers"),
        "complex": ("return pixels[:, 0, :, 0] * 1j", "not finite real numbers"),
        "another width": (
            "own3.append(0); return pixels[:, 0, :, 0][:, : 8 - len(own3)]\nown3 = []",
            "6 features of an image, 7 of those before",
        ),
    },
}
EACH = [
    (kind, *case)
    for kind in ARGUMENTS
    for case in (FAULTS | MORE[kind]).values()
    if kind == "schedule" or "t.to('nowhere')" not in case[0]
    if kind != "features" or case[0] != "return 0.0"  # which has a shape
]


def used(kind, digests):
    """Use a part named `own` as a job does."""
    settings = {"plugins": digests, "process": "ve", "target": "own", "network": {}}
    recipe = {"weight": "own" if kind == "weight" else "gap", "dropout": 0.0}
    settings["recipe"] = recipe | {"distance": {"kind": "squared"}}
    chosen = {"map": "own" if kind == "schedule" else "zero", "options": {}, "clock": "noise"}
    if kind in ("schedule", "weight"):
        objective = parts.make_objective(settings | {"schedule": chosen}, 0.5)
        s = torch.ones(3)
        objective.weight(s, objective.schedule(s, 1.0), 0.5)
    elif kind == "sampler":
        about = {"shape": [1, 8, 8], "network": {}, "shift": 0.0, "scale": 1.0}
        drawing = {"kind": "own", "options": {}, "images": 4, "batch": 4, "seed": 0}
        draw.draw(None, None, about, drawing | settings)
    elif kind == "features":
        _, extract = evaluate.extractor({"extractor": "own", "plugins": digests})
        for _ in range(2):
            extract(np.zeros((4, 8, 8, 1), np.uint8))
    else:
        build.make_process(settings | {"process": "own"})


def refused(kind, text, path="own.py"):
    """The one line that is said of a file whose part `own` is used."""
    Path(path).write_text(text)
    with pytest.raises(ValueError) as caught:
        used(kind, {path: hashlib.sha256(text.encode()).hexdigest()})
    said = str(caught.value)
    assert said.startswith(f"plugins: {path}: ") and said.isprintable(), said
    return said


@pytest.mark.parametrize("kind, statement, words", EACH)
def test_a_function_that_fails_is_named(tmp_path, monkeypatch, kind, statement, words):
    monkeypatch.chdir(tmp_path)
    returns = statement if "return" in statement else f"{statement}; return 0.0"
    body = BODY.format(ARGUMENTS[kind], returns)
    said = refused(kind, f"from ect.plugins import {kind}\n\n@{kind}\n{body}\n")
    assert f"{kind} 'own'" in said and words in said, said


HEAD = "from ect.plugins import process, weight\nfrom ect.process import VE, Process\n"
CLASSES = {
    "exit": ("def __init__(self): raise SystemExit(0)", "line 4: SystemExit: exit 0"),
    "exception": ("def coefficients(self, t): 1 / 0", "line 4: ZeroDivisionError"),
    "recursion": ("def time(self, s): return self.time(s)", "line 4: RecursionError"),
    "none": ("def coefficients(self, t): pass", "coefficients returned NoneType"),
    "one": ("def coefficients(self, t): return t", "coefficients returned Tensor"),
    "none of two": ("def coefficients(self, t): return t, 1", "coefficients returned int"),
    "none, time": ("def time(self, s): pass", "returned NoneType"),
    "shape": ("def time(self, s): return s[:2]", "(2,) on cpu; allowed: floats (5,)"),
    "signature": ("def time(self): return 1", "TypeError"),
    "no number": ("t_max = None", "no t_max"),
    "text": ("t_max = '1'", "t_max is '1'; allowed: a number"),
    "not finite": ("t_max = float('inf')", "t_max is inf"),
}


@pytest.mark.parametrize("body, words", CLASSES.values(), ids=CLASSES)
@pytest.mark.parametrize("inherited", [False, True])
def test_a_class_that_fails_is_named(tmp_path, monkeypatch, body, words, inherited):
    monkeypatch.chdir(tmp_path)
    mark = "" if inherited else "@process"
    text = f"{HEAD}{mark}\nclass {'Base' if inherited else 'own'}(VE): {body.strip()}\n"
    if body.startswith("def"):
        text = text.replace("(VE): ", "(VE):\n  ").replace(f"{mark}\nclass", f"{mark}\nclass", 1)
        words = words.replace("line 4", "line 5")
    if inherited:
        text += "@process\nclass own(Base): pass\n"
    said = refused("process", text)
    assert "process 'own'" in said and words in said, said


WHOLE = {
    "exit": ("raise SystemExit(0)", "line 1: SystemExit: exit 0"),
    "recursion": ("f = lambda: f()\nf()", "line 1: RecursionError"),
    "no module": ("import nowhere", "line 1: ModuleNotFoundError"),
}
WEIGHT = "\nfrom ect.plugins import weight\n@weight\ndef own(s, r, sd): return s\n"


@pytest.mark.parametrize("text, words", WHOLE.values(), ids=WHOLE)
def test_a_file_that_fails_is_named(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused("weight", text + WEIGHT)


TAKEN = {
    "another value": ("own = None", "line 5: own is given another value"),
    "deleted": ("del own", "line 5: own is deleted"),
    "another value, unseen": ("globals()['own'] = None", "weight 'own': is a NoneType"),
    "deleted, unseen": ("globals().pop('own')", "weight 'own': is a NoneType"),
}


@pytest.mark.parametrize("end, words", TAKEN.values(), ids=TAKEN)
def test_a_part_that_its_file_takes_back_is_named(tmp_path, monkeypatch, end, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused("weight", WEIGHT + end)


def test_an_interrupt_and_a_lack_of_memory_are_no_faults_of_a_plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for error in ("KeyboardInterrupt", "MemoryError", "RuntimeError('CUDA out of memory')"):
        text = WEIGHT.replace("return s", f"raise {error}; return s")
        Path("own.py").write_text(text)
        with pytest.raises((KeyboardInterrupt, MemoryError, RuntimeError)):
            used("weight", {"own.py": hashlib.sha256(text.encode()).hexdigest()})


def test_a_plugin_may_print_and_import_what_is_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    Path("neighbour_of_own.py").write_text("ONE = 1.0")
    text = "from neighbour_of_own import ONE" + WEIGHT.replace("return", "print(ONE); return ONE *")
    Path("own.py").write_text(text)
    before = list(sys.path)
    used("weight", {"own.py": hashlib.sha256(text.encode()).hexdigest()})
    assert sys.path == before


BAD = "raise SystemExit('hidden')\n"


def test_files_beside_a_config_hide_no_module(tmp_path):
    """Neither in the working directory, nor beside this package."""
    shutil.copytree(ROOT / "ect", tmp_path / "ect", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "Snakefile").touch()
    (tmp_path / "config.yaml").write_text((ROOT / "config.yaml").read_text())
    for name in ("json", "random", "argparse", "pathlib", "torch", "yaml", "pydantic", "numpy"):
        (tmp_path / f"{name}.py").write_text(BAD)
    others = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for env in (others, others | {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}):
        command = [sys.executable, "-m", "ect", "plan"]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0 and "network small" in done.stdout, done.stderr


@pytest.mark.pipeline
def test_a_workflow_with_such_files_runs_and_a_plugin_among_them_is_refused(tmp_path):
    copy_workflow(tmp_path)
    for name in ("torch", "random", "json"):
        (tmp_path / f"{name}.py").write_text(BAD)
    words = ["-m", "snakemake", "--cores", "1", "results/digits/data/dataset.safetensors"]
    for config, code in ((), 0), (("--config", "plugins=['json.py']"), 1):
        command = [sys.executable, "-P", *words, *config]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
    assert "plugins: json.py: named like the module json" in done.stdout + done.stderr


def test_rates_of_another_shape_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = f"{HEAD}@process\nclass own(VE):\n    def rates(self, t): return None\n"
    Path("own.py").write_text(text)
    digests = {"own.py": hashlib.sha256(text.encode()).hexdigest()}
    own = build.make_process({"process": "own", "plugins": digests})
    with pytest.raises(ValueError, match=r"^plugins: own\.py: process 'own': rates returned NoneT"):
        own.rates(torch.ones(2))
