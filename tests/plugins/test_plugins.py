"""Plugins: copies of built-in parts give the same bits, errors are named, no file runs early."""

import copy
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ect import plugins
from ect.cli.main import main
from ect.config.cells import Milestone, Tuned
from ect.config.config import Config, ConfigError
from ect.data.batches import Images
from ect.evaluation import evaluate, metrics, sample
from ect.models import build, draw, trust
from ect.process import VPLinear
from ect.report import maps
from ect.runtime import checkpoint
from ect.study import settings as study_settings
from ect.training import parts, train
from tests.helpers import warm
from tests.helpers.workflow import copy_workflow

ROOT = Path(__file__).parents[2]
DEFAULT = json.loads(json.dumps(yaml.safe_load((ROOT / "config.yaml").read_text())))
BITS = """
from ect.plugins import schedule

@schedule
def same_ratio(t, progress, q: float = 2.0, stages: int = 8):
    return t * (1 - q ** -(int(progress * stages + 1e-9) + 1))
"""
REST = '''
"""Copies of vp_cosine, gap and euler, and means over rows as features."""
import math

from ect import ode
from ect.plugins import features, process, sampler, weight
from ect.process import Process
from ect.sampler import grid

@process
class Cosine(Process):
    t_max = 1.0

    def coefficients(self, t):
        return (t * math.pi / 2).cos(), (t * math.pi / 2).sin()

    def time(self, s):
        return s.atan() * 2 / math.pi

@weight
def slope(s, r, sd):
    return 1 / (s - r)

@sampler
def straight(f, process, eps, steps: int = 3, rho: float = 7):
    assert len(eps) == 1
    levels = grid(steps, rho=rho)
    y = eps[0] * levels[0]
    for s, r in zip(levels, levels[1:]):
        y = ode.euler(f, process, y, s, r)
    return y

@sampler
def hops(f, process, eps, times: list[float] = (0.5,)):
    assert len(eps) == 1 + len(times)
    return eps[-1]

@features
def rows(pixels):
    return pixels[..., 0].mean(1)
'''


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A small config with a plugin of each kind in two files of the working directory, and blocks
    that are the same but for built-in parts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maps.py").write_text(BITS)
    (tmp_path / "rest.py").write_text(REST)
    config = copy.deepcopy(DEFAULT)
    config["plugins"] = ["rest.py", "maps.py"]
    config["networks"]["small"] |= {"channels": 8, "multipliers": [1, 1], "attention": []}
    small = {"like": "ve", "kimg": 1, "every": 1}
    config["pretrain"] |= {
        "mine": small | {"process": "Cosine"},
        "theirs": small | {"process": "vp_cosine"},
    }
    config["schedules"] |= {
        "mine": {"map": "same_ratio", "stages": 4},
        "theirs": {"map": "constant", "stages": 4},
    }
    config["tune"] |= {
        "mine": {"like": "ect", "weight": "slope"},
        "theirs": {"like": "ect", "weight": "gap"},
    }
    config["samplers"] |= {
        "mine": {"kind": "straight", "label": "mine", "steps": 2, "nfe": 2},
        "theirs": {"kind": "euler", "label": "theirs", "steps": 2},
        "hops": {"kind": "hops", "label": "hops", "times": [3.0, 1.0], "nfe": 1},
    }
    config["features"] = {"extractor": "rows"}
    config["evaluation"] = {"images": 20, "batch": 10, "kd_subsets": 2}
    return config


def trained(study, name, data, out):
    """The folders of a milestone and of a tuning run from it."""
    start = Milestone(name, 0, 1)
    train.run(study_settings.train(study, start), data, out / name)
    settings = study_settings.train(study, Tuned(start, name, name, 1, 0))
    train.run(settings, data, out / f"{name}_tuned", init=out / name / "model.safetensors")
    return out / name, out / f"{name}_tuned"


def test_a_copy_gives_the_bits_of_what_it_copies_and_again_from_its_record(
    config, digits_file, tmp_path
):
    study = Config.read(config)
    both = [trained(study, name, digits_file, tmp_path / "o") for name in ("mine", "theirs")]
    for own, built_in in zip(*both):
        assert (own / "metrics.jsonl").read_bytes() == (built_in / "metrics.jsonl").read_bytes()
        here, there = (checkpoint.load(f / "model.safetensors")[0] for f in (own, built_in))
        assert all(torch.equal(here[key], there[key]) for key in here) and len(here) > 10
    images = []
    for name, (_, tuned) in zip(("mine", "theirs"), both):
        sampling = study_settings.sample(study, name)
        sample.run(sampling, tuned / "model.safetensors", tmp_path / "o" / name)
        images.append((tmp_path / "o" / name / "samples.npz").read_bytes())
    assert images[0] == images[1]

    start, tuned = both[0]
    words = ["train", str(tuned / "run.json"), "--data", str(digits_file)]
    assert main([*words, "--init", str(start / "model.safetensors"), "--out", "again"]) == 0
    again = (tmp_path / "again" / "model.safetensors").read_bytes()
    assert again == (tuned / "model.safetensors").read_bytes()


def test_a_model_names_the_plugin_of_its_process_alone(config, digits_file, tmp_path, capsys):
    study = Config.read(config)
    settings = study_settings.train(study, Milestone("mine", 0, 1)) | study_settings.train(
        study, Tuned(Milestone("mine", 0, 1), "mine", "theirs", 1, 0)
    )
    assert list(settings["plugins"]) == ["maps.py", "rest.py"]
    about = build.description(settings, Images(digits_file))
    digest = hashlib.sha256(REST.encode()).hexdigest()
    assert about["plugins"] == {"rest.py": digest}
    built_in = study_settings.train(study, Milestone("theirs", 0, 1))
    assert "plugins" not in build.description(built_in, Images(digits_file))

    network = build.make_network(about["network"], about["shape"])
    checkpoint.save("model.safetensors", network.state_dict(), **about)
    f, process, _ = build.load_model("model.safetensors", ["rest.py"])
    assert type(process).__name__ == "Cosine" and f.process is process
    keys = ("network", "process", "parameterization", "c_noise")
    imported = {k: v for k, v in settings.items() if k not in keys}
    imported["plugins"] = {"maps.py": settings["plugins"]["maps.py"]}
    with pytest.raises(ValueError, match=r"'rest.py' .* not named"):
        parts.settings_with_start(imported, "model.safetensors", Images(digits_file))
    with trust.allowed(["rest.py"]):
        whole = parts.settings_with_start(imported, "model.safetensors", Images(digits_file))
    assert whole["process"] == "Cosine" and whole["plugins"] == settings["plugins"]

    sampling = json.dumps(study_settings.sample(study, "one_step"))
    words = ["sample", sampling, "--model", "model.safetensors", "--out", "drawn"]
    words += ["--plugins", "rest.py"]
    for spoil, said in (
        (lambda: Path("rest.py").write_text(REST + "\n# edited"), "rest.py: edited since"),
        (lambda: Path("rest.py").unlink(), "rest.py: No such file"),
    ):
        spoil()
        plugins._run.cache_clear()
        assert main(words) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("ect sample: plugins: ") and said in lines[0]


def test_a_features_plugin_is_the_space_of_the_distances(config, digits_file, tmp_path):
    study = Config.read(config)
    settings = study_settings.evaluate(study, None)
    evaluate.run(settings, None, digits_file, tmp_path / "floor.json")
    found = json.loads((tmp_path / "floor.json").read_text())
    test, real = (Images(digits_file, split).pixels[:][..., 0] for split in ("test", "train"))
    wanted = metrics.frechet(*(pixels.astype(np.float64).mean(1) for pixels in (test, real)))
    assert found["features"] == "rows" and found["fd"] == pytest.approx(wanted, rel=1e-9)


def test_a_sampler_gets_a_noise_for_each_of_its_times(config):
    study = Config.read(config)
    settings, about = study_settings.sample(study, "hops"), {"shape": [1, 8, 8], "network": {}}
    about |= {"shift": 0.0, "scale": 1.0}
    assert settings["options"] == {"times": [3.0, 1.0]}
    assert draw.draw(None, None, about, settings).shape == (20, 8, 8, 1)
    assert study.samplers["hops"].evaluations == 1
    assert study_settings.sample(study, "mine")["options"] == {"steps": 2, "rho": 7.0}


def test_settings_name_the_plugins_that_they_use(config):
    study, plain = Config.read(config), Config.read(config | {"plugins": ["maps.py", "rest.py"]})
    config["features"] = DEFAULT["features"]
    for pretrain, schedule, tune in (
        (p, s, r)
        for p in ("mine", "theirs")
        for s in ("mine", "theirs")
        for r in ("mine", "theirs")
    ):
        model = Tuned(Milestone(pretrain, 0, 1), schedule, tune, 1, 0)
        settings = study_settings.train(study, model)
        wanted = {"maps.py"} if schedule == "mine" else set()
        wanted |= {"rest.py"} if "mine" in (pretrain, tune) else set()
        assert set(settings.get("plugins", {})) == wanted
        assert str(settings) == str(
            study_settings.train(plain, model)
        )  # the order of the list does not matter
    for name in study.samplers:
        assert ("plugins" in study_settings.sample(study, name)) == (name in ("mine", "hops"))
    assert (
        "plugins" in study_settings.feature_space(study)
        and "plugins" in study_settings.trace(study)["features"]
    )
    built_in = Config.read(config)
    assert "plugins" not in study_settings.feature_space(built_in)
    assert set(study_settings.plot_maps(built_in)["plugins"]) == {"maps.py"}


def test_the_figure_of_maps_draws_a_plugins_map(config, tmp_path):
    settings = study_settings.plot_maps(Config.read(config))
    both = [
        maps.stages(block["map"], block["options"], settings["plugins"])
        for block in (settings["schedules"]["mine"], settings["schedules"]["theirs"])
    ]
    for (progress, own), (at, built_in) in zip(*both):
        assert progress == at and np.array_equal(own, built_in)
    only = {"width_in": 3.0, **settings, "schedules": {"m": settings["schedules"]["mine"]}}
    assert main(["draw", "maps", json.dumps(only), "--out", "figure"]) == 0
    assert (tmp_path / "figure.png").stat().st_size > 1000


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
    ("schedules/mine/map", "same", ["schedules.mine: map is 'same'", "lsd, same_ratio"]),
    ("schedules/mine/k", 1.0, ["schedules.mine", "'k' of same_ratio", "q, stages"]),
    ("schedules/mine/stages", 1.5, ["schedules.mine", "stages is 1.5", "int"]),
    ("pretrain/mine/process", "cos", ["pretrain.mine.process: found 'cos'", "or 'Cosine'"]),
    ("pretrain/mine/process", 3, ["pretrain.mine.process: found 3", "or 'Cosine'"]),
    ("pretrain/mine/parameterization", "noise", ["'noise'", "'Cosine'", "edm, velocity"]),
    ("tune/mine/weight", "slop", ["tune.mine.weight: found 'slop'", "'flow' or 'slope'"]),
    ("samplers/mine/kind", "str", ["samplers.mine.kind: found 'str'", "'straight' or 'hops'"]),
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
    ("features/extractor", "row", ["features.extractor: found 'row'", "'efficientnet' or 'rows'"]),
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


def test_a_process_may_be_one_of_ours_with_other_numbers(config):
    Path("other.py").write_text(
        "from ect.plugins import process\nfrom ect.process import VPLinear\n"
        "@process\nclass Slow(VPLinear):\n    beta_d = 14.9\n"
    )
    digest = hashlib.sha256(Path("other.py").read_bytes()).hexdigest()
    made = build.make_process({"process": "Slow", "plugins": {"other.py": digest}})
    assert isinstance(made, VPLinear) and made.beta_d == 14.9


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    """A copy of the workflow, in which nothing has run."""
    folder = tmp_path_factory.mktemp("plugins")
    copy_workflow(folder)
    return folder


def snakemake(folder, overlay, *words):
    """What Snakemake prints of the smoke study under a changed config."""
    (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    files = ("--configfile", "workflow/studies/smoke.yaml", "overlay.yaml")
    done = warm.run("snakemake", "--cores", "all", *files, *words, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def believed(folder, overlay):
    """Create every output, and record every job as done with the present settings."""
    snakemake(folder, overlay, "--touch")
    summary = snakemake(folder, overlay, "--summary").splitlines()
    header = next(i for i, line in enumerate(summary) if line.startswith("output_file\t"))
    for path in (folder / line.split("\t")[0] for line in summary[header + 1 :] if "\t" in line):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1e9, 1e9))


def planned(folder, overlay):
    """(rule, output folder) of all that a dry run would write again, except the page, which hashes
    the whole config."""
    text = snakemake(folder, overlay, "-n")
    rules = re.findall(r"^rule (\w+):\n(?: +input: .*\n)? +output: ([^,\n]*)", text, re.MULTILINE)
    return {(r, str(Path(output).parent)) for r, output in rules if r != "write_page"}


@pytest.mark.pipeline
def test_an_edited_plugin_runs_again_what_uses_it(workflow):
    (workflow / "maps.py").write_text(BITS)
    (workflow / "rest.py").write_text(REST)
    before = {"schedules": {"unused": {"map": "constant"}}}
    believed(workflow, before)
    assert planned(workflow, before) == set()

    added = {"plugins": ["maps.py", "rest.py"], **before}
    assert planned(workflow, added) == set()
    used = added | {"schedules": {"mine": {"map": "same_ratio"}}}
    figures = "results/smoke/figures"
    assert planned(workflow, used) == {("draw_maps", figures)}  # it shows every schedule
    row = {"pretrain": ["ve"], "kimg": [1], "tune": "ect", "tune_kimg": 1}
    rows = [
        row | {"schedules": ["sigmoid", "mine"], "samplers": ["one_step"]},
        {"pretrain": ["ve"], "kimg": [1], "samplers": ["mine"]},
    ]
    used |= {
        "experiments": {"schedules": {"rows": rows}},
        "samplers": {"mine": {"kind": "straight", "label": "mine", "nfe": 3}},
    }
    tuned = "results/smoke/tune/ve/s0/k1/mine/ect/k1/s0"
    sampled = "results/smoke/pretrain/ve/s0/k1/mine"
    new = {
        ("tune", tuned), ("sample", f"{tuned}/one_step"), ("evaluate", f"{tuned}/one_step"),
        ("tabulate", "results/smoke/tables"), ("draw_experiment", figures),
    }  # fmt: skip
    shown = {("draw_maps", figures), ("draw_curves", figures)}
    drawn = {("sample", sampled), ("evaluate", sampled)}
    assert planned(workflow, used) == new | shown | drawn

    believed(workflow, used)
    assert planned(workflow, used) == set()
    (workflow / "maps.py").write_text(BITS.replace("1e-9", "1e-8"))
    assert planned(workflow, used) == new | shown
    (workflow / "maps.py").write_text(BITS)
    (workflow / "rest.py").write_text(REST + "\n# edited\n")
    report = {("tabulate", "results/smoke/tables"), ("draw_experiment", figures)}
    assert planned(workflow, used) == drawn | report
