"""Objectives of plugins: losses of a function, their evaluations, mistakes as one line."""

import copy
import json
from pathlib import Path

import pytest
import torch
import yaml

from ect import plugins
from ect.config.cells import Milestone, Tuned
from ect.config.config import Config, ConfigError
from ect.consistency import Consistency
from ect.flowmap import FlowMap
from ect.models import build
from ect.networks.dropout import Masks
from ect.objective import Objective, PluginObjective, squared
from ect.process import VE, Flow
from ect.study import cost
from ect.study import settings as study_settings
from ect.training import parts

ROOT = Path(__file__).parents[2]
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
HEAD = "import torch\nfrom ect.plugins import objective\n\n@objective\n"
ARGUMENTS = "f, x, eps, s, r, progress"
HALVED = f"""{HEAD}def halved({ARGUMENTS}, share: float = 0.5):
    def at(s):
        t = f.process.time(s)
        return f(f.process.noise(x, eps, t), t)
    with torch.no_grad():
        target = at(share * s)
    return (at(s) - target).square().flatten(1).mean(1)
"""
MODEL = Tuned(Milestone("ve", 0, 30), "own", "own", 1, 0)


@pytest.fixture
def make_map():
    """A flow map of a network of random, not small, weights, with dropout."""

    def make(dropout):
        torch.manual_seed(0)
        about = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "span": True}
        network = build.make_network(about, (1, 8, 8), dropout).double().train()
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
        return FlowMap(network, Flow(), "velocity", 0.5, c_noise="time", span=True)

    return make


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = copy.deepcopy(DEFAULT)
    Path("losses.py").write_text(HALVED)
    config["plugins"] = ["losses.py"]
    config["schedules"]["own"] = {"map": "halved"}
    config["tune"]["own"] = {
        "like": "ect",
        "distance": {"kind": "squared", "c": 0.0},
        "weight": "edm",
    }
    return config


def made(config):
    settings = study_settings.train(Config.read(config), MODEL)
    return parts.make_objective(json.loads(json.dumps(settings)), 0.5)


def test_ects_loss_written_as_an_objective_is_ects_loss(config, make_unet, draw):
    """Under the same dropout masks, and with the recipe's weight."""
    network = make_unet(0.3, torch.float64).train()
    f, x, eps = Consistency(network, VE(), "edm", 0.5), draw(0), draw(1)
    masks = Masks(5)
    s = torch.tensor([0.05, 0.4, 1.5, 12.0], dtype=torch.float64)
    own = made(config)
    assert isinstance(own, PluginObjective)
    ect = Objective(VE(), lambda s, _: 0.5 * s, squared, own.weight, 0.5)
    levels = torch.stack([s, torch.ones_like(s)], dim=1)
    terms, wanted = own(f, x, eps, levels, 0.3, masks), ect(f, x, eps, s, 0.3, masks)
    assert torch.equal(terms.loss, wanted.loss) and torch.equal(terms.residual, wanted.residual)
    apart = ect(f, x, eps, s, 0.3, Masks(6))
    assert not torch.equal(apart.loss, wanted.loss)  # masks do matter here


def test_it_draws_two_levels_and_evaluates_f_as_often_as_it_asks(config, make_unet, draw):
    own, network, calls = made(config), make_unet(dtype=torch.float64), []
    network.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    first, second = torch.arange(1.0, 9.0, dtype=torch.float64).view(2, 4)
    drawn = iter([first, second])
    levels = own.levels(lambda: next(drawn))
    assert torch.equal(levels[:, 0], first) and levels.shape == (4, 2)
    terms = own(Consistency(network, VE(), "edm", 0.5), draw(0), draw(1), levels, 0.0)
    assert torch.equal(terms.r, second) and sorted(calls) == [False, True]


def test_its_settings_have_the_file_and_the_options(config):
    config["schedules"]["own"]["share"] = 0.25
    study = Config.read(config)
    settings = study_settings.train(study, MODEL)
    assert settings["schedule"]["options"] == {"share": 0.25}
    digest = plugins.read(["losses.py"])["objective"]["halved"].digest
    assert settings["plugins"] == {"losses.py": digest}
    assert not study.has_pairs(MODEL) and "own" not in study_settings.plot_maps(study)["schedules"]
    assert cost._training(settings) == "halved, fp32"


TWO_TIMES = f"""{HEAD}def halved({ARGUMENTS}):
    values = torch.cat([f(x, s, r), f(x, s), f.output(x, s, r), f.velocity(x, s)], dim=1)
    return values.flatten(1).sum(1).exp()
"""
DERIVED = f"""import torch
from ect.limit import along
from ect.plugins import objective
@objective
def halved({ARGUMENTS}):
    _, slope = along(lambda s: f(x, s), (s,), (s,), f.masks)
    return slope.square().flatten(1).mean(1)
"""


def test_the_flow_map_of_a_network_with_span_has_its_end(config, make_map, draw):
    Path("losses.py").write_text(TWO_TIMES)
    f, x, masks = make_map(0.3), draw(0), Masks(5)
    levels = torch.tensor([[0.8, 0.3], [0.6, 0.1], [0.9, 0.5], [0.4, 0.2]], dtype=torch.float64)
    s, r = levels.unbind(1)
    found = made(config)(f, x, draw(1), levels, 0.0, masks).residual
    wanted = []
    for value in (lambda: f(x, s, r), lambda: f(x, s), lambda: f.output(x, s, r),
                  lambda: f.velocity(x, s)):  # fmt: skip
        with masks.applied():
            wanted.append(value())
    assert torch.equal(found, torch.cat(wanted, dim=1).flatten(1).sum(1).exp())


def test_along_differentiates_f_under_the_masks_of_the_step(config, make_unet, draw):
    Path("losses.py").write_text(DERIVED)
    f = Consistency(make_unet(0.3, torch.float64).train(), VE(), "edm", 0.5)
    x, masks, s = draw(0), Masks(5), torch.tensor([0.1, 0.4, 1.5, 3.0], dtype=torch.float64)
    found = made(config)(f, x, x, torch.stack([s, s], dim=1), 0.0, masks).residual
    with torch.no_grad(), masks.applied():
        sides = [f(x, s * (1 + step)) for step in (1e-5, -1e-5)]
    slope = (sides[0] - sides[1]) / 2e-5
    torch.testing.assert_close(found, slope.square().flatten(1).mean(1), rtol=1e-6, atol=0)


def change(block, **keys):
    return lambda config: config[block]["own"].update(keys)


MISTAKES = {
    "clock": (change("schedules", clock="time"), "clock is 'time' with halved; allowed: noise"),
    "option": (change("schedules", part=1.0), "unknown option 'part' of halved; allowed: share"),
    "distance": (
        change("tune", distance={"kind": "huber", "c": 0.0}),
        "(halved) with recipe 'own', found",
    ),
    "weight": (change("tune", weight="gap"), "any weight but gap"),
    "target": (change("tune", target="heun"), "found target 'heun'; allowed: target own"),
}


@pytest.mark.parametrize("spoil, words", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_config_is_named(config, spoil, words):
    spoil(config)
    row = {"pretrain": ["ve"], "kimg": [30], "tune": "own", "tune_kimg": 1, "schedules": ["own"]}
    rows = [row | {"samplers": ["one_step"]}]
    config["experiments"]["mine"] = {"question": "?", "kind": "methods", "rows": rows}
    with pytest.raises(ConfigError) as caught:
        Config.read(config)
    assert words in str(caught.value) and "\n" not in str(caught.value)


FILES = {
    "few": (HEAD + "def own(f, x): return x", "allowed: (f, x, eps, s, r, progress; then options"),
    "swapped": (HEAD + "def own(f, eps, x, s, r, progress): return s", "eps and x changed places"),
    "no progress": (
        HEAD + "def own(f, x, eps, s, r, c: float = 1.0): return s",
        "c: float=1.0); allowed: (f, x, eps, s, r, progress; then options",
    ),
    "class": (HEAD + "class own: pass", "own is marked an objective; allowed: a function"),
    "a map": (HEAD + f"def sigmoid({ARGUMENTS}): return s", "sigmoid is a schedule of ect"),
    "ours": (HEAD + f"def continuous({ARGUMENTS}): return s", "continuous is a schedule of ect"),
    "a map's": (
        f"{HEAD}def own({ARGUMENTS}): return s\n"
        "from ect.plugins import schedule\n@schedule\ndef own(t, progress): return 0 * t",
        "own is an objective of other.py",
    ),
    "text": (HEAD + f"def own({ARGUMENTS}, a: str = 'b'): return s", "annotated str; allowed: int"),
}


@pytest.mark.parametrize("text, words", FILES.values(), ids=FILES)
def test_a_mistake_in_the_file_is_named(config, text, words):
    Path("other.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        Config.read(config | {"plugins": ["losses.py", "other.py"]})
    assert words in str(caught.value) and "\n" not in str(caught.value)


RESULTS = {
    "mean": ("f(x, s).mean()", r"returned torch.float64 \(\) on cpu; allowed: floats"),
    "images": ("f(x, s)", r"\(4, 1, 8, 8\) on cpu; allowed: floats \(4,\)"),
    "negative": ("-f(x, s).square().flatten(1).mean(1)", "returned a loss of -.*; allowed: 0 or"),
    "constant": ("s", "returned losses without a gradient; allowed: ones that depend on f"),
    "in place": ("f(x.mul_(2), s).flatten(1).mean(1)", "changes its arguments in place"),
    "error": ("f(x, f.nothing)", "line 6: AttributeError: "),
    "no span": (
        "f(x, s, r).flatten(1).mean(1)",
        "ValueError: f.x_t, t, r. of a network without span; allowed: span: true",
    ),
    "plain jvp": (
        "torch.func.jvp(lambda t: f(x, t), (s,), (s,))[1]",
        "NotImplementedError: no derivative in forward mode; allowed: `along` of ect.limit",
    ),
    "none": ("None and s", "returned NoneType; allowed: a tensor"),
}


@pytest.mark.parametrize("value, words", RESULTS.values(), ids=RESULTS)
def test_a_result_that_is_no_loss_is_one_line(config, value, words, make_unet, draw):
    Path("losses.py").write_text(HEAD + f"def halved({ARGUMENTS}):\n    return {value}\n")
    f = Consistency(make_unet(dtype=torch.float64), VE(), "edm", 0.5)
    levels = torch.ones(4, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=f"^plugins: losses.py: objective 'halved': .*{words}"):
        made(config)(f, draw(0), draw(1), levels, 0.0)
