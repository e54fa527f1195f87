"""The target of consistency training as first proposed: a moving average of the weights."""

import json
import math

import numpy as np
import pytest
import torch

from ect.config import verbs
from ect.config.config import Config, ConfigError
from ect.data.batches import Images
from ect.models.about import Foreign
from ect.networks.dropout import Masks
from ect.objective import Objective, squared, uniform
from ect.process import VE, expand
from ect.runtime import checkpoint
from ect.study import settings as study_settings
from ect.training import average, loop, memory, train
from ect.training.perfect import Gaussian
from ect.training.state import State
from tests.helpers import configs
from tests.helpers.processes import trained
from tests.helpers.runs import TUNE, changed, contents

GRID = {"s0": 2, "s1": 20, "low": 0.002, "high": 80.0}
OWN = changed(
    TUNE,
    schedule={"map": "ct", "options": GRID, "clock": "noise"},
    recipe__prior={"kind": "karras", "options": {}},
    recipe__distance={"kind": "squared", "c": 0.0},
    recipe__weight="uniform",
)
CT = changed(OWN, target="ema", recipe__mu0=0.9)


def test_the_decay_is_the_papers_from_its_first_step_to_its_end():
    """mu(k) = exp(s0 ln mu0 / N(k)) with the number N(k) of points of the grid."""
    assert average.of_target(CT, 0.0) == 0.9
    assert average.of_target(CT, 1.0) == pytest.approx(0.9 ** (2 / 21), rel=1e-15)
    for k, steps in ((k, 400) for k in range(400)):
        root = math.sqrt(k / steps * ((20 + 1) ** 2 - 2**2) + 2**2)
        points = math.ceil(root - 1) + 1
        wanted = math.exp(2 * math.log(0.9) / points)
        assert average.of_target(CT, k / steps) == pytest.approx(wanted, rel=1e-14)
    doubling = changed(CT, schedule__map="ict", schedule__options=GRID | {"s0": 10, "s1": 160})
    assert average.of_target(doubling, 0.0) == pytest.approx(0.9 ** (10 / 11))
    assert average.of_target(doubling, 0.99) == pytest.approx(0.9 ** (10 / 161))


def test_a_target_that_keeps_nothing_of_itself_is_the_networks_own_to_the_bit(
    digits_file, tmp_path
):
    """With dropout: both have the same masks."""
    train.run(OWN, digits_file, tmp_path / "own")
    train.run(changed(CT, recipe__mu0=0.0), digits_file, tmp_path / "ema")
    names = ("model.safetensors", "snapshots.safetensors", "metrics.jsonl")
    assert contents(tmp_path / "own", names) == contents(tmp_path / "ema", names)
    own, ema = (
        checkpoint.load(tmp_path / name / "state.safetensors")[0] for name in ("own", "ema")
    )
    target = checkpoint.within("target", ema)
    for name, weight in checkpoint.within("network", own).items():
        assert torch.equal(target.pop(name), weight)
    assert not target and {k for k in ema if not k.startswith("target.")} == set(own)


def begun(settings, data):
    images = Images(data)
    state = State(settings, images)
    return state, loop.loop(state, settings, images)


def numbers(network):
    return {k: v.double().numpy().copy() for k, v in network.state_dict().items()}


def test_after_each_step_the_target_is_that_of_the_formula(digits_file):
    state, steps = begun(CT, digits_file)
    wanted = numbers(state.network)
    for k, _ in enumerate(steps):
        points = math.ceil(math.sqrt(k / 10 * (21**2 - 4) + 4) - 1) + 1
        mu, weights = np.exp(2 * np.log(0.9) / points), numbers(state.network)
        wanted = {key: mu * value + (1 - mu) * weights[key] for key, value in wanted.items()}
        for key, value in numbers(state.target).items():
            np.testing.assert_allclose(value, wanted[key], rtol=1e-5, atol=1e-7)
    assert k == 9
    moved = numbers(state.network)
    assert max(np.abs(moved[key] - wanted[key]).max() for key in moved) > 1e-4


def test_no_gradient_reaches_the_target(digits_file):
    """And that of the network is the one of a target that is a number."""
    state, steps = begun(CT, digits_file)
    for _ in range(3):
        next(steps)
    objective, f = steps.gi_frame.f_locals["objective"], steps.gi_frame.f_locals["f"]
    before = {k: v.clone() for k, v in state.target.state_dict().items()}
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    eps, s, masks = torch.randn_like(x), torch.linspace(0.1, 60, 8), Masks(7)
    state.network.zero_grad()
    terms = objective(f, x, eps, s, 0.5, masks)
    terms.loss.sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in state.target.parameters())
    assert all(torch.equal(v, before[k]) for k, v in state.target.state_dict().items())
    found = [p.grad.clone() for p in state.network.parameters()]
    with torch.no_grad(), masks.applied():
        held = objective.averaged(x + expand(terms.r, x) * eps, terms.r)
    state.network.zero_grad()
    with masks.applied():
        squared(f(x + expand(terms.s, x) * eps, terms.s), held).sum().backward()
    for one, parameter in zip(found, state.network.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-5, atol=1e-6)


def test_on_gaussian_data_the_loss_is_that_between_the_two_functions():
    """f is the denoiser, its average the consistency function; where r = 0 the image is left."""
    spectrum = torch.tensor([0.04, 0.5, 2.0], dtype=torch.float64)
    f, averaged = Gaussian(VE(), spectrum, power=1), Gaussian(VE(), spectrum)
    generator = torch.Generator().manual_seed(1)
    x = f.draw(40, generator)
    eps = torch.randn(x.shape, generator=generator).double()
    s = torch.linspace(0.1, 20, 40, dtype=torch.float64)

    def ratio(s, progress):
        return torch.where(s < 1, 0.0, 0.8 * s)

    objective = Objective(VE(), ratio, squared, uniform, 0.5, averaged=averaged)
    found, r = objective(f, x, eps, s, 0.0).loss, ratio(s, 0)
    lam = spectrum.expand_as(x)
    ones, others = (expand(level, x) for level in (s, r))
    left = (x + ones * eps) * lam / (lam + ones**2)
    right = (x + others * eps) * (lam / (lam + others**2)).sqrt()
    torch.testing.assert_close(found, (left - right).square().flatten(1).mean(1))
    objective.averaged = None
    assert (objective(f, x, eps, s, 0.0).loss - found).abs()[s > 1].min() > 0


@pytest.fixture(scope="module")
def whole(digits_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    train.run(CT, digits_file, out)
    return out


@pytest.mark.parametrize("after", [1, 6])
def test_a_stopped_run_ends_with_the_bits_of_an_undisturbed_one(
    after, whole, digits_file, tmp_path, monkeypatch
):
    out, step, taken = tmp_path / "run", loop.step, []

    def stopping(*args):
        if len(taken) == after:
            raise KeyboardInterrupt
        taken.append(1)
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train.run(CT, digits_file, out, save_seconds=-1.0)
    train.run(CT, digits_file, out)
    assert json.loads((out / "run.json").read_text())["resumed_at"] == [100 * after]
    assert contents(out) == contents(whole)


def test_a_state_without_its_target_or_with_another_is_refused(whole, digits_file):
    tensors, _ = checkpoint.load(whole / "state.safetensors")
    state = State(CT, Images(digits_file))
    state.require(tensors, 1000)
    for wrong in (
        {k: v for k, v in tensors.items() if not k.startswith("target.")},
        tensors | {"target.head.bias": torch.full((1,), torch.nan)},
        tensors | {"target.more": torch.zeros(1)},
    ):
        with pytest.raises(Foreign, match=r"target\."):
            state.require(wrong, 1000)
    with pytest.raises(Foreign, match=r"unexpected: target\."):
        State(OWN, Images(digits_file)).require(tensors, 1000)


def test_a_start_is_that_of_the_target_too(whole, digits_file):
    weights, _ = checkpoint.load(whole / "model.safetensors")
    state = State(changed(CT, seed=3), Images(digits_file))
    state.start_from(weights)
    assert all(torch.equal(state.target.state_dict()[k], v) for k, v in weights.items())


@pytest.mark.parametrize("world, microbatch", [(1, 30), (2, 100)])
def test_processes_and_microbatches_take_the_same_steps(world, microbatch, digits_file, tmp_path):
    """In double precision, up to the order of sums."""
    settings = changed(CT, recipe__microbatch=microbatch)
    torch.set_default_dtype(torch.float64)
    try:
        train.run(CT, digits_file, tmp_path / "whole")
        if world == 1:
            train.run(settings, digits_file, tmp_path / "parts")
    finally:
        torch.set_default_dtype(torch.float32)
    if world > 1:
        assert trained(world, settings, digits_file, tmp_path / "parts") == [0] * world
    whole, parts = (
        checkpoint.load(tmp_path / name / "state.safetensors")[0] for name in ("whole", "parts")
    )
    for key, value in checkpoint.within("target", whole).items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(parts[f"target.{key}"], value, rtol=1e-8, atol=1e-10)


def test_the_plan_counts_the_target(digits_file):
    own, ema = (memory.of_step(one, (1, 8, 8)) for one in (OWN, CT))
    assert (own["target"], ema["target"]) == (0, ema["weights"]) and ema["teacher"] == 0
    assert ema["total"] == own["total"] + ema["weights"]


RECIPE = {"like": "ect", "target": "ema", "mu0": 0.9}


def study(recipe, schedule="ct", kimg=0):
    """The default study with one row of consistency training."""
    config = configs.changed("schedules/grid", {"map": schedule})
    config["tune"]["first"] = recipe
    row = {"pretrain": ["ve"], "kimg": [kimg], "tune": "first", "tune_kimg": 6}
    row |= {"schedules": ["grid"], "samplers": ["one_step"]}
    config["experiments"]["methods"]["rows"] = [row]
    return config


@pytest.mark.parametrize("kimg", [0, 30])
def test_it_needs_no_pretraining_and_is_in_the_settings_where_it_is_asked_for(kimg):
    config = Config.read(study(RECIPE, kimg=kimg))
    found = study_settings.train(config, config.cells("methods")[0].model)
    assert found["target"] == "ema" and found["recipe"]["mu0"] == 0.9
    verbs.require("train", found)
    others = [model for model in config.all_tuned() if model.recipe != "first"]
    assert all("mu0" not in study_settings.train(config, m)["recipe"] for m in others) and others


WRONG = [
    (RECIPE | {"mu0": None}, "ct", r"tune\.first.* mu0 is None with target 'ema'; allowed: .*0\.9"),
    (RECIPE | {"target": "own"}, "ct", "mu0 is 0.9 with target 'own'; allowed: with .*ema"),
    (RECIPE | {"mu0": 1.0}, "ct", r"first\.mu0: found 1\.0"),
    (RECIPE, "sigmoid", "found target 'ema'; allowed: a map with a grid, ct, ict"),
    (
        RECIPE | {"distance": {"kind": "squared", "c": 0.0}},
        "continuous",
        "a map with a grid, ct, ict",
    ),
]


@pytest.mark.parametrize("recipe, schedule, words", WRONG)
def test_what_does_not_fit_is_told_by_the_config(recipe, schedule, words):
    with pytest.raises(ConfigError, match=words):
        Config.read(study(recipe, schedule))


def test_settings_by_hand_are_held_to_the_same():
    for wrong, words in (
        (changed(CT, recipe__mu0=None), "mu0 is None with target 'ema'"),
        (changed(CT, schedule=TUNE["schedule"]), "allowed: a map with a grid"),
    ):
        with pytest.raises(ValueError, match=words):
            verbs.require("train", wrong)
