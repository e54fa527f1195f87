"""Mistakes in the files of plugins, and in what a config says of them, are named in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ect.config.cells import Milestone, Tuned
from ect.config.config import Config, ConfigError
from ect.evaluation import evaluate
from ect.study import settings as study_settings
from ect.training import parts
from tests.helpers.plugins import BITS, REST

ROOT = Path(__file__).parents[2]


def test_a_config_is_checked_without_running_its_plugins(config):
    Path("maps.py").write_text(BITS + "\nraise RuntimeError('run')\n")
    study = Config.read(config)
    settings = study_settings.train(study, Tuned(Milestone("theirs", 0, 1), "mine", "theirs", 1, 0))
    with pytest.raises(ValueError, match=r"^plugins: maps.py: line 8: RuntimeError: run$"):
        parts.make_objective(settings, 0.5)
    Path("config.json").write_text(json.dumps(config))
    code = (
        "import json, sys; from ect.config.config import Config;"
        "Config.read(json.load(open('config.json')));"
        "sys.exit('torch' in sys.modules)"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def option(written):
    return f"from ect.plugins import schedule\n@schedule\ndef own(t, progress, {written}): return t"


def written(kind, arguments, body="return 0"):
    return f"from ect.plugins import {kind}\n@{kind}\ndef own({arguments}):\n    {body}\n"


BODIES = {  # of a schedule: what is known without running it
    "nothing": ("t * progress", "returns nothing; allowed: a schedule that returns its result"),
    "return": ("return", "returns nothing"),
    "none": ("return None", "returns nothing"),
    "inner": ("def inner(): return t", "returns nothing"),
    "generator": ("yield t", "yields its result; allowed: a schedule that returns it"),
    "generator, too": ("return (yield t)", "yields its result"),
    "no code": ("nonlocal t", "line 4: name 't' is parameter and nonlocal; allowed: a Python file"),
    "loop": ("break", "line 4: 'break' outside loop"),
}
DIGITS = "1" + "0" * 400
FILES = {
    **{
        f"body: {name}": (written("schedule", "t, progress", body), [said])
        for name, (body, said) in BODIES.items()
    },
    "swapped": (written("schedule", "progress, t"), ["own(progress, t)", "allowed: (t, progress)"]),
    "an objective": (
        written("schedule", "f, x, eps, s, r, progress", "return s"),
        ["own(f, x, eps, s, r, progress)", "allowed: (t, progress; then options by name)"],
    ),
    "swapped weight": (written("weight", "r, s, sd"), ["r and s changed places", "(s, r, sd)"]),
    "moved weight": (written("weight", "sd, s, r"), ["sd and s and r changed places"]),
    "swapped sampler": (written("sampler", "process, f, eps"), ["allowed: (f, process, eps)"]),
    "relative": (
        "from .ect.plugins import schedule\n@schedule\ndef own(t, progress): return t",
        ["line 1: from .ect.plugins import schedule", "no dots"],
    ),
    "no base": (
        "from ect.plugins import process\n@process\nclass own: t_max = 1.0",
        ["line 3: own has no base; allowed: a subclass of Process"],
    ),
    "return outside": ("return 1\n" + BITS, ["line 1: 'return' outside function"]),
    "an argument twice": (written("schedule", "t, t"), ["line 3: duplicate argument 't'"]),
    "no encoding": ("# coding: nosuch\n" + BITS, ["line 1: ", "nosuch"]),
    "401 digits": (option(f"power: float = {DIGITS}"), ["option power", "literal float"]),
    "401 digits, int": (option(f"power: int = {DIGITS}"), ["option power", "literal int"]),
    "endless": (option("power: float = 1e999"), ["option power", "1e309", "literal float"]),
    "hexadecimal": (option(f"power: int = 0x{'f' * 9000}"), ["is ...; allowed: a literal int"]),
    "a million signs": (option(f"power: int = {'not ' * 900}1"), ["allowed: a"]),
    "no number": (option("power: float = 1e999 - 1e999"), ["option power", "literal float"]),
    "undefined": (
        written("schedule", "t, progress", "return t * progres"),
        ["line 4: progres is not defined", "did you mean 'progress'?"],
    ),
    "undefined helper": (
        written("schedule", "t, progress", "return half(t)") + "\ndef alf(t): return numpy.abs(t)",
        ["line 4: half is not defined"],
    ),
    "undefined base": (
        "from ect.plugins import process\n@process\nclass own(VE): pass",
        ["line 3: VE is not defined"],
    ),
    "undefined in a class": (
        "from ect.plugins import process\nfrom ect.process import VE\n__a = 1\n@process\n"
        "class _Own(VE):\n    def time(self, s): return __a * s",
        ["line 6: __a is not defined"],
    ),
    "large": ("#" * 2**20 + BITS, ["more than 1048576 bytes", "a Python file"]),
    "no Python": ("def (:", ["line 1", "allowed: a Python file"]),
    "null": ("\0", ["allowed: a Python file"]),
    "nothing": ("def own(t, progress): return t", ["found no part", "@schedule"]),
    "a decorator of others": ("@schedule\ndef own(t, progress): return t", ["found no part"]),
    "no annotation": (option("power=4.0"), ["option power", "nothing", "int, float"]),
    "another annotation": (option("power: str = 'a'"), ["option power", "str", "int, float"]),
    "no default": (option("power: float"), ["option power", "default is nothing"]),
    "no default, by name": (option("*, power: float"), ["option power", "default is nothing"]),
    "no literal": (option("power: float = 2 * 2"), ["option power", "2 * 2", "literal float"]),
    "half an int": (option("stages: int = 1.5"), ["option stages", "1.5", "literal int"]),
    "a truth": (option("stages: int = True"), ["option stages", "True", "literal int"]),
    "any option": (option("**options"), ["own(t, progress, **options)", "(t, progress; then"]),
    "a key": (option("clock: int = 1"), ["option clock", "key of the config's block"]),
    "too few": (
        "from ect.plugins import weight\n@weight\ndef own(s, r): return s",
        ["own(s, r)", "allowed: (s, r, sd)"],
    ),
    "weight with option": (
        "from ect.plugins import weight\n@weight\ndef own(s, r, sd, k: float = 1.0): return s",
        ["allowed: (s, r, sd)"],
    ),
    "brackets": (
        "from ect.plugins import schedule\n@schedule()\ndef own(t, progress): return t",
        ["line 3: own", "without ()"],
    ),
    "inside": (
        "from ect.plugins import schedule\nif 1:\n  @schedule\n  def own(t, progress): return t",
        ["line 4: own", "top level"],
    ),
    "process function": (
        "from ect.plugins import process\n@process\ndef own(t): return t",
        ["own is marked a process", "subclass of Process"],
    ),
    "schedule class": (
        "from ect.plugins import schedule\n@schedule\nclass own: pass",
        ["own is marked a schedule", "a function"],
    ),
    "built in": (
        "from ect.plugins import schedule as mark\n@mark\ndef sigmoid(t, progress): return t",
        ["sigmoid is a schedule of ect", "another name"],
    ),
    "twice": (BITS + BITS, ["same_ratio is a schedule of other.py", "another name"]),
    "another plugin's": (BITS, ["same_ratio is a schedule of maps.py", "another name"]),
    "called FID": (
        "from ect.plugins import features\n@features\ndef inception(pixels): return pixels",
        ["inception is a features of ect"],
    ),
    "called FID, almost": (
        "from ect.plugins import features\n@features\ndef inception3(pixels): return pixels",
        ["inception3", "not Inception's"],
    ),
}


@pytest.mark.parametrize("text, words", FILES.values(), ids=FILES)
def test_mistake_in_a_file_is_named(config, text, words):
    Path("other.py").write_text(text)
    others = ["maps.py", "rest.py"] if "of maps.py" in words[0] else ["rest.py"]
    with pytest.raises(ConfigError) as caught:
        Config.read(config | {"plugins": [*others, "other.py"]})
    said = str(caught.value)
    assert len(said.splitlines()) == 1 and said.startswith("plugins: other.py: "), said
    assert all(word in said for word in words), said


DEFINED = {
    "argument": "return t * progress",
    "comprehension": "return sum(t * part for part in (progress, len(str(progress))))",
    "inner function": "half = lambda x: x / 2; return half(t)",
    "global": "global SEEN; SEEN = progress; return t * SEEN",
    "walrus": "return [y := t, y * progress][1]",
    "later": "return late(t)",
    "its own file": "return t * len(__file__)",
    "as it runs": "globals()['half'] = 0.5; return t * half",
}


@pytest.mark.parametrize("body", DEFINED.values(), ids=DEFINED)
def test_a_name_that_the_file_defines_is_taken(config, body):
    text = written("schedule", "t, progress", body) + "\ndef late(t): return t * t\n"
    Path("other.py").write_text(text)
    Config.read(config | {"plugins": ["maps.py", "rest.py", "other.py"]})


KEYS = [
    ("plugins", "maps.py", ["plugins: found 'maps.py'", "a list of Python files"]),
    ("plugins", ["none.py"], ["plugins: none.py", "No such file", "working directory"]),
    ("plugins", ["."], ["plugins: .", "directory"]),
    ("plugins", ["/dev/zero"], ["plugins: /dev/zero: no regular file; allowed: a Python file"]),
    ("plugins", ["pipe"], ["plugins: pipe: no regular file"]),
    ("plugins", ["/proc/self/status"], ["plugins: /proc/self/status: found no part"]),
    (
        "schedules/mine/map",
        "same",
        ["schedules.mine: map is 'same'", "lsd, same_ratio or one of a file in `plugins`"],
    ),
    ("schedules/mine/k", 1.0, ["schedules.mine", "'k' of same_ratio", "q, stages"]),
    ("schedules/mine/stages", 1.5, ["schedules.mine", "stages is 1.5", "int"]),
    (
        "pretrain/mine/process",
        "cos",
        ["pretrain.mine.process: found 'cos'", "'Cosine' or one of a file in `plugins`"],
    ),
    (
        "pretrain/mine/process",
        3,
        ["pretrain.mine.process: found 3", "'Cosine' or one of a file in `plugins`"],
    ),
    ("pretrain/mine/parameterization", "noise", ["'noise'", "'Cosine'", "edm, velocity"]),
    ("tune/mine/weight", "slop", ["tune.mine.weight: found 'slop'", "'flow', 'slope' or one"]),
    ("samplers/mine/kind", "str", ["samplers.mine.kind: found 'str'", "'straight', 'hops' or one"]),
    ("samplers/mine/nfe", ..., ["samplers.mine: nfe is missing", "'straight'"]),
    ("samplers/theirs/nfe", 2, ["samplers.theirs: nfe is set for 'euler'"]),
    ("samplers/theirs/rho", 2, ["samplers.theirs: unknown key 'rho'", "steps"]),
    ("samplers/mine/times", [1.0], ["samplers.mine", "'times' of straight", "steps, rho"]),
    ("samplers/hops/times", [1.0, 3.0], ["samplers.hops", "for 'hops', a plugin's", "decreasing"]),
    ("samplers/hops/times", [1.0, 1.0], ["samplers.hops", "for 'hops', a plugin's", "decreasing"]),
    ("samplers/hops/times", [80.0], ["samplers.hops", "for 'hops', a plugin's", "below 80"]),
    ("samplers/hops/times", [float("nan")], ["samplers.hops.times.0: found nan; allowed: "]),
    ("samplers/hops/times", "a", ["samplers.hops.times: found 'a'; allowed: "]),
    ("samplers/mine/rho", "7", ["samplers.mine: rho is '7'", "float"]),
    ("samplers/mine/steps", 0, ["samplers.mine.steps", "0"]),
    (
        "features/extractor",
        "row",
        ["features.extractor: found 'row'", "'efficientnet', 'rows' or one"],
    ),
]


@pytest.mark.parametrize("path, value, words", KEYS, ids=[f"{p}={v}" for p, v, _ in KEYS])
def test_mistake_in_the_config_is_named(config, path, value, words):
    os.mkfifo("pipe")
    *blocks, key = path.split("/")
    place = config
    for block in blocks:
        place = place[block]
    place[key] = value
    if value is ...:
        del place[key]
    with pytest.raises(ConfigError) as caught:
        Config.read(config)
    said = str(caught.value)
    assert len(said.splitlines()) == 1 and all(word in said for word in words), said


CLOCK = r"clock\(time\(s\)\) is"
LAWLESS = {
    "above": ("schedule", "def own(t, progress): return t * (1 + progress)", "r is .* allowed: 0"),
    "nan": ("schedule", "def own(t, progress): return t * float('nan')", "r is nan"),
    "shape": ("weight", "def own(s, r, sd): return s[:, None]", r"\(3, 1\) on cpu; allowed"),
    "weight nan": ("weight", "def own(s, r, sd): return s / 0 - s / 0", "positive and finite"),
    "slope of r": ("weight", "def own(s, r, sd): return 1 / (r - s)", "is -.* positive and finite"),
    "other names": ("schedule", "def own(p, q): return q + 0 * p", "r is .* allowed: 0"),
    "start": ("process", "class own(VE):\n  def coefficients(self, t): return t, t", "1, 0"),
    "clock": ("process", "class own(VE):\n  def time(self, s): return 2 * s", CLOCK),
    "end": ("process", "class own(Flow):\n  time, t_max = Process.time, 0.5", CLOCK),
    "no process": ("process", "class own(dict): pass", "a subclass of Process"),
    "no end": ("process", "class own(Process):\n  coefficients = VE.coefficients", "no t_max"),
}


@pytest.mark.parametrize("kind, text, said", LAWLESS.values(), ids=LAWLESS)
def test_a_part_that_breaks_its_law_is_refused(config, kind, text, said):
    head = f"from ect.plugins import {kind}\nfrom ect.process import VE, Flow, Process\n@{kind}\n"
    Path("other.py").write_text(head + text)
    config["plugins"].append("other.py")
    place = {"schedule": "schedules/mine/map", "weight": "tune/mine/weight"}
    *block, key = place.get(kind, "pretrain/mine/process").split("/")
    config[block[0]][block[1]][key] = "own"
    if kind == "schedule":
        del config["schedules"]["mine"]["stages"]
    settings = study_settings.train(
        Config.read(config), Tuned(Milestone("mine", 0, 1), "mine", "mine", 1, 0)
    )
    with pytest.raises(ValueError, match=f"{kind} 'own': .*{said}|{kind} 'own'; .*{said}"):
        parts.make_objective(settings, 0.5)


@pytest.mark.parametrize("name", ["json", "torch", "sub/numpy", "ect", "pydantic", "sitecustomize"])
def test_a_file_named_like_a_module_is_refused(config, name):
    Path("sub").mkdir()
    Path(f"{name}.py").write_text(BITS)
    with pytest.raises(ConfigError) as caught:
        Config.read(config | {"plugins": ["rest.py", f"{name}.py"]})
    wanted = f"plugins: {name}.py: named like the module {Path(name).name}, which it would hide;"
    assert str(caught.value).startswith(wanted) and "\n" not in str(caught.value)


def test_features_of_another_shape_are_refused(config, digits_file, tmp_path):
    Path("rest.py").write_text(REST.replace("[..., 0].mean(1)", ".mean(0)"))
    settings = {"features": study_settings.feature_space(Config.read(config)), "cell": {}}
    with pytest.raises(ValueError, match=r"features of \d+ images have the shape"):
        evaluate.run(settings, None, digits_file, tmp_path / "m.json")
