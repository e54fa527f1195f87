"""`compile: true` in a recipe and in drawing."""

import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from ect.consistency import Consistency
from ect.models import build, draw
from ect.networks import compiled
from ect.objective import WEIGHTS, Objective, PluginObjective, Truncated, huber
from ect.process import VE
from ect.runtime import checkpoint, stop
from ect.study import cost
from ect.training import parts, train
from tests.helpers.compiling import Tiny, without_kernels
from tests.helpers.runs import TUNE, changed, contents

SETTINGS = changed(TUNE, recipe__batch=250, recipe__compile=True)


@pytest.fixture
def tiny(monkeypatch):
    """Runs train a network of few kernels."""

    def network(described, shape, dropout=0.0, dropout_at=None):
        return Tiny(shape[0], dropout)

    monkeypatch.setattr(build, "build_network", network)


def test_a_compiled_run_is_the_run_and_a_stopped_one_the_undisturbed_one(
    tiny, digits_file, tmp_path
):
    """To the byte, though the second process compiles anew; without `compile`, to rounding."""
    train.run(SETTINGS, digits_file, tmp_path / "whole")
    torch._dynamo.reset()
    first = Path(compiled.prepare().name)
    compiled.prepare.cache_clear()
    assert not first.exists()
    with pytest.raises(stop.Stopped):
        train.run(SETTINGS, digits_file, tmp_path / "stopped", max_minutes=0)
    train.run(SETTINGS, digits_file, tmp_path / "stopped")
    assert contents(tmp_path / "whole") == contents(tmp_path / "stopped")
    assert json.loads((tmp_path / "whole/run.json").read_text())["settings"]["recipe"]["compile"]
    train.run(changed(TUNE, recipe__batch=250), digits_file, tmp_path / "plain")
    paths = [tmp_path / name / "model.safetensors" for name in ("whole", "plain")]
    found, plain = (checkpoint.load(path)[0] for path in paths)
    assert found.keys() == plain.keys()
    for name in found:
        torch.testing.assert_close(found[name], plain[name], rtol=1e-3, atol=1e-5)


def test_how_many_images_have_r_zero_changes_no_graph(tiny, digits_file, tmp_path, monkeypatch):
    """Eight stages, in whose first most have: one graph with gradient, one without."""
    graphs = []
    without_kernels(monkeypatch, graphs)
    settings = changed(SETTINGS, recipe__batch=50, schedule__options={"q": 2.0, "stages": 8})
    train.run(settings, digits_file, tmp_path / "run")
    assert graphs == [(50, 1, 8, 8)] * 2


def test_a_loss_of_a_plugin_is_left_as_it_is_and_it_says_so(monkeypatch, capsys, make_unet):
    compiled.tell.cache_clear()
    f = Consistency(make_unet(), VE(), "edm", 0.5)
    assert parts.compiled(f, PluginObjective(VE(), WEIGHTS["edm"], 0.5, None)) is f
    assert capsys.readouterr().err == "ect: compile: a plugin's loss is computed without it\n"


@pytest.mark.parametrize("part", ["teacher", "averaged", "frozen"])
def test_what_a_loss_evaluates_beside_f_is_compiled_too(part, monkeypatch, make_unet):
    monkeypatch.setattr(compiled, "prepare", lambda: None)
    f, other = (Consistency(make_unet(), VE(), "edm", 0.5) for _ in range(2))
    common = VE(), lambda s, _: 0.5 * s, huber, WEIGHTS["gap"], 0.5
    objective = Truncated(*common, **{part: other})
    found = parts.compiled(f, objective)
    for made, plain in ((found, f), (getattr(objective, part), other)):
        assert made.conditioned_on(None).network.network is plain.network is not made.network


@pytest.mark.parametrize("kind", [Objective, Truncated])
def test_targets_of_a_compiled_f_are_of_whole_batches(kind, monkeypatch):
    monkeypatch.setattr(compiled, "prepare", lambda: None)
    sizes = []

    class Wave(torch.nn.Module):
        dropouts: ClassVar = []

        def computed(self, x, c_noise):
            sizes.append(len(x))
            return torch.sin(x)

    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    f, frozen = (Consistency(Wave(), VE(), "edm", 0.5) for _ in range(2))
    given = {"frozen": frozen} if kind is Truncated else {}
    objective = kind(VE(), few, huber, WEIGHTS["gap"], 0.5, **given)
    f = parts.compiled(f, objective)
    x, eps = torch.randn(2, 24, 1, 2, 2)
    objective(f, x, eps, torch.linspace(0.1, 3, 24), 0.5)
    assert set(sizes) == {24}


def few(s, progress):
    """r > 0 for the last three images alone."""
    return torch.where(torch.arange(len(s)) < 21, 0.0, 0.9 * s)


def test_compiled_drawing_draws_the_same_images(monkeypatch, make_unet):
    """In batches of two sizes, a graph for each however many steps and jobs; f stays as it is."""
    graphs = []
    without_kernels(monkeypatch, graphs)
    f = Consistency(make_unet().eval().requires_grad_(False), VE(), "edm", 0.5)
    about = {"network": {}, "shape": [1, 8, 8], "shift": 127.5, "scale": 1 / 127.5}
    settings = {
        "kind": "multistep",
        "options": {"times": [1.0]},
        "images": 5,
        "batch": 3,
        "seed": 0,
    }
    plain = draw.draw(f, VE(), about, settings).astype(int)
    assert not graphs
    for _ in range(2):
        found = draw.draw(f, VE(), about, settings | {"compile": True}).astype(int)
        assert abs(found - plain).max() <= 1  # of 255: rounding
    assert graphs == [(3, 1, 8, 8), (2, 1, 8, 8)]
    assert not isinstance(f.network, compiled.Compiled)


def test_a_plan_keeps_the_speed_of_compiled_work_apart():
    assert cost._drawing({"compile": True}) == "drawing, fp32, compiled"
    assert cost._training(SETTINGS) == "own, fp32, compiled"
    assert cost._drawing({}) == "drawing, fp32" and cost._training(TUNE) == "own, fp32"
