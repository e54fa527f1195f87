"""`compile: true` in a recipe and in drawing."""

import json

import pytest
import torch

from ect.models import build
from ect.networks import compiled
from ect.runtime import checkpoint, stop
from ect.training import train
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
    compiled.prepare.cache_clear()
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
