"""The memory of a training step: the bytes that are counted before it are those of a real one."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from ect.cli.main import main
from ect.data.batches import Images
from ect.models import build
from ect.training import loop, memory, parts
from ect.training.state import State
from tests.helpers.configs import DEFAULT
from tests.helpers.runs import TUNE, changed

EDM2 = {"network__architecture": "edm2"}
CASES = {
    "fp32": {},
    "bf16": {"recipe__precision": "bf16"},
    "edm2": EDM2,
    "edm2 in fp16": EDM2 | {"recipe__precision": "fp16"},
    "classes": {"network__classes": 10},
    "microbatch": {"recipe__microbatch": 30},
    "averages": {"recipe__ema_halflife_kimg": None, "recipe__ema_std": [0.05, 0.1]},
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_keeps_what_was_counted(case, digits_file):
    """A whole step: what autograd keeps of its largest part, beside the weights, and the bytes
    of weights, gradients, moments and averages. The loss itself adds numbers of image size."""
    settings, images = changed(TUNE, **CASES[case]), Images(digits_file)
    expected = memory.of_step(settings, images.shape)
    state, about = State(settings, images), build.description(settings, images)
    objective = parts.make_objective(settings, images.sd)
    f = build.make_consistency(state.network, objective.process, about)
    most, pass_ = [], state.network.forward

    def counted(*given, **known):
        with memory.kept_bytes(state.network) as kept:
            result = pass_(*given, **known)
        most.append(sum(kept.values()))
        return result

    state.network.forward = counted
    loop.step(state, settings, images, objective, f, 1000)
    assert max(most) == expected["activations"] > 0
    weights = list(state.network.parameters())
    sizes = {
        "weights": weights,
        "gradients": [weight.grad for weight in weights],
        "moments": [v for slot in state.optimizer.state.values() for v in slot.values() if v.ndim],
        "averages": [
            value for one in state.averages for name, value in one.items()
            if name in dict(state.network.named_parameters())
        ],
    }  # fmt: skip
    for name, tensors in sizes.items():
        scalars = 2 * 4 * len(weights)  # moments of a weight without dimensions are left out above
        assert 0 <= expected[name] - sum(t.nbytes for t in tensors) <= scalars, name


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("network", [TUNE["network"], TUNE["network"] | {"architecture": "edm2"}])
def test_fake_tensors_count_as_real_ones(network, precision, monkeypatch):
    recipe = {"batch": 5, "dropout": 0.1, "precision": precision}
    real = memory.activations(network, (1, 8, 8), recipe, 5)
    monkeypatch.setattr(memory, "LARGE", 0)
    fake = memory.activations(network, (1, 8, 8), recipe, 5)
    assert fake == pytest.approx(real, rel=0 if precision == "fp32" else 0.01)


def test_dropout_keeps_its_masks_where_it_is():
    recipe = {"batch": 4, "dropout": 0.1}
    everywhere = memory.activations(TUNE["network"], (1, 8, 8), recipe, 4)
    some = memory.activations(TUNE["network"], (1, 8, 8), recipe | {"dropout_at": 4}, 4)
    none = memory.activations(TUNE["network"], (1, 8, 8), recipe | {"dropout": 0.0}, 4)
    assert everywhere > some > none


def test_the_frozen_start_is_counted_where_the_loss_has_a_part_of_it():
    plain = memory.of_step(TUNE, (1, 8, 8))
    for change in ({"target": "heun"}, {"recipe": TUNE["recipe"] | {"truncate": {"at": 1.0}}}):
        found = memory.of_step(TUNE | change, (1, 8, 8))
        assert (plain["teacher"], found["teacher"]) == (0, plain["weights"])


def test_a_plan_prints_the_largest_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(yaml.safe_dump(DEFAULT))
    assert main(["plan", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["memory"]
    names = ("weights", "gradients", "moments", "averages", "teacher", "target", "activations")
    assert found["total"] == sum(found[name] for name in names)
    assert found["weights"] == 4 * build.parameters(DEFAULT["networks"]["small"], (1, 8, 8))
    assert main(["plan"]) == 0
    assert f"memory of a step of {found['run']}, 32 images" in capsys.readouterr().out


def test_what_is_saved_twice_is_counted_once():
    weight, x = torch.ones(3, requires_grad=True), torch.ones(3)
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(weight.detach())
    with memory.kept_bytes(model) as kept:
        (model.weight * x * x).sum()
    assert kept and sum(kept.values()) <= 2 * x.nbytes
