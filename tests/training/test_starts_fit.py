"""A run goes on from a start whose f is its own, and on the images of its chain."""

import copy

import pytest
import torch

from ect.data.batches import Images
from ect.models import build
from ect.runtime import checkpoint, record
from ect.training import train
from ect.training.parts import settings_with_start
from tests.helpers.reports import Inputs
from tests.helpers.runs import TUNE, changed


@pytest.fixture
def start(tmp_path):
    """A dataset, and a model that a run on it may start from: (data, path)."""
    data = Inputs(tmp_path).dataset()
    about = build.description(TUNE, Images(data))
    network = build.make_network(about["network"], about["shape"])
    checkpoint.save(tmp_path / "model.safetensors", network.state_dict(), **about)
    return data, tmp_path / "model.safetensors"


def test_a_start_of_the_same_f_is_taken(start):
    data, path = start
    assert settings_with_start(TUNE, path, Images(data)) is TUNE
    _, about = checkpoint.load(path)
    older = copy.deepcopy(about)
    del older["c_noise"], older["c_in"]
    older["network"] |= {"classes": 0, "span": False}
    checkpoint.save(path, checkpoint.load(path)[0], **older)
    assert settings_with_start(TUNE, path, Images(data)) is TUNE


@pytest.mark.parametrize(
    ("key", "value"),
    [("process", "vp_cosine"), ("parameterization", "noise"), ("scale", 0.5), ("shift", 0),
     ("c_in", "one")],
)  # fmt: skip
def test_a_start_of_another_f_is_refused(key, value, start):
    """Its weights have the same shapes, so that they would load."""
    data, path = start
    weights, about = checkpoint.load(path)
    checkpoint.save(path, weights, **about | {key: value})
    with pytest.raises(ValueError, match=f"{path}: the start's {key} is .*; allowed: .* as the"):
        settings_with_start(TUNE, path, Images(data))


@pytest.mark.parametrize(("one", "other"), [("end", True), (True, "end")])
def test_a_start_told_another_time_is_refused(one, other, start):
    """A network that is told r, or t - r: both have the same weights."""
    data, path = start
    network = TUNE["network"] | {"span": one}
    about = build.description(TUNE | {"network": network}, Images(data))
    weights = build.make_network(network, about["shape"]).state_dict()
    checkpoint.save(path, weights, **about)
    with pytest.raises(ValueError, match=f"{path}: the start's network is .*; allowed: "):
        settings_with_start(
            TUNE | {"network": TUNE["network"] | {"span": other}}, path, Images(data)
        )


def test_a_state_goes_on_with_the_images_of_its_chain(start, tmp_path):
    data, _ = start
    state = tmp_path / "state.safetensors"
    checkpoint.save(state, {"network.a": torch.zeros(1)}, seen=1000)
    facts = {
        "settings": {},
        "inputs": {"data": "0" * 64},
        "outputs": {state.name: record.digest(state)},
    }
    checkpoint.write_json(tmp_path / "run.json", facts)
    settings = changed(TUNE, first_kimg=1, last_kimg=2)
    with pytest.raises(ValueError, match=f"{state}: a run on other images than those of"):
        train.run(settings, data, tmp_path / "out", resume=state)


def test_attention_of_no_level_is_refused_in_settings_by_hand(start):
    data, _ = start
    settings = changed(TUNE, network__attention=[4, 16])
    found = "network.attention: found 16 for images of 8 x 8 pixels; allowed: .* levels, 8, 4"
    with pytest.raises(ValueError, match=found):
        settings_with_start(settings, None, Images(data))
