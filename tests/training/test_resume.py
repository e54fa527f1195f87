"""What `train --resume` goes on from: the state of the run before, whole, and nothing else."""

import json
import shutil

import pytest
import torch

from ect.cli.main import main
from ect.runtime import checkpoint
from ect.training import train
from tests.helpers.runs import PRETRAIN, TUNE, changed

SMALL = changed(
    PRETRAIN, network={"channels": 8, "multipliers": [1], "blocks": 1, "attention": []},
    recipe__batch=500,
)  # fmt: skip
NEXT = changed(SMALL, first_kimg=1, last_kimg=2)


@pytest.fixture(scope="module")
def first(digits_file, tmp_path_factory):
    """The folder of a run of one thousand images."""
    out = tmp_path_factory.mktemp("first") / "k1"
    train.run(SMALL, digits_file, out)
    return out


def nan(name):
    return lambda tensors: tensors[name].view(-1)[0].fill_(torch.nan)


def without(part):
    def edit(tensors):
        for name in [name for name in tensors if name.startswith(part)]:
            del tensors[name]

    return edit


def set_to(name, change):
    return lambda tensors: tensors.update({name: change(tensors[name])})


def steps(count):
    return lambda tensors: tensors.update(
        {name: torch.tensor(count) for name in tensors if name.endswith(".step")}
    )


A = "average.head.bias"
STATES = {  # a change of the state: what is said of it
    "average of NaN": (nan("average.stem.weight"), "NaN or infinity in average.stem.weight"),
    "weights of NaN": (nan("network.stem.weight"), "NaN or infinity in network.stem.weight"),
    "moment of NaN": (nan("optimizer.0.exp_avg"), "NaN or infinity in optimizer.0.exp_avg"),
    "no average": (without("average."), "missing: average."),
    "one missing": (without(A), f"missing: {A}"),
    "no network": (without("network."), "missing: network."),
    "no optimizer": (without("optimizer."), "missing: optimizer.0.exp_avg"),
    "no moment": (without("optimizer.1.exp_avg_sq"), "missing: optimizer.1.exp_avg_sq"),
    "no step": (without("optimizer.0.step"), "missing: optimizer.0.step"),
    "broadcast": (set_to("average.stem.weight", lambda v: v[:1, :1, :1, :1]), "another shape"),
    "broadcast moment": (set_to("optimizer.0.exp_avg", lambda v: v[:1]), "another shape"),
    "one number": (set_to(A, lambda v: v[0]), f"another shape: {A}"),
    "half precision": (set_to(A, lambda v: v.half()), f"{A} of torch.float16"),
    "steps of 0": (steps(0.0), "optimizer steps of 0"),
    "steps beyond the images": (steps(1e30), "optimizer steps of 1e+30"),
    "half a step": (steps(1.5), "optimizer steps of 1.5"),
    "negative steps": (steps(-5.0), "optimizer steps of -5"),
    "other steps": (set_to("optimizer.1.step", lambda v: v + 1), "optimizer steps of 2, 3"),
    "no squares": (
        set_to("optimizer.0.exp_avg_sq", lambda v: v - 1),
        "negative numbers in optimizer.0.exp",
    ),
    "whole numbers": (set_to(A, lambda v: v.to(torch.int8)), f"{A} of torch.int8"),
    "unknown": (lambda tensors: tensors.update({"average.x": torch.zeros(1)}), "unexpected: ave"),
    "loss scale": (lambda tensors: tensors.update({"scaler.scale": torch.ones(())}), "unexpected"),
}


def refused(words, capsys):
    assert main(list(map(str, words))) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize("edit, wanted", STATES.values(), ids=STATES)
def test_a_state_that_is_not_whole_is_refused(first, digits_file, tmp_path, capsys, edit, wanted):
    tensors, about = checkpoint.load(first / "state.safetensors")
    edit(tensors)
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, tensors, **about)
    words = ["train", json.dumps(NEXT), "--data", digits_file, "--resume", path]
    line = refused([*words, "--out", tmp_path / "o"], capsys)
    assert f"{path}: state: found " in line and wanted in line and "allowed: " in line
    assert not (tmp_path / "o" / "model.safetensors").exists()


@pytest.mark.parametrize("seen", [0, 999, 2000, -1000, 1e3, "1000", None, True])
def test_a_state_ends_where_the_run_begins(first, digits_file, tmp_path, capsys, seen):
    tensors, _ = checkpoint.load(first / "state.safetensors")
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, tensors, seen=seen)
    words = ["train", json.dumps(NEXT), "--data", digits_file, "--resume", path]
    line = refused([*words, "--out", tmp_path / "o"], capsys)
    assert f"{path}: found a state after {seen} images; allowed: 1000" in line


@pytest.mark.parametrize(
    "other, wanted",
    [
        ({"seed": 1}, "seed is 0; allowed: 1"),
        ({"schedule": TUNE["schedule"]}, "schedule is .*zero.*; allowed: .*sigmoid"),
        ({"process": "flow", "parameterization": "velocity"}, 'process is "ve"; allowed: "flow"'),
        ({"c_noise": "time"}, 'c_noise is "log_s"; allowed: "time"'),
        ({"sd": 0.4}, "sd is null; allowed: 0.4"),
        ({"recipe__batch": 50}, "batch is 500; allowed: 50"),
        ({"recipe__optimizer__lr": 1e-4}, "optimizer is .*; allowed: .*0.0001"),
        ({"recipe__dropout": 0.2}, "dropout is 0.1; allowed: 0.2"),
        ({"recipe__dropout_at": 8}, "dropout_at is null; allowed: 8"),
    ],
)
def test_a_state_of_another_chain_is_refused(first, digits_file, tmp_path, other, wanted):
    state = first / "state.safetensors"
    with pytest.raises(ValueError, match=f"state.safetensors: a run whose {wanted}"):
        train.run(changed(NEXT, **other), digits_file, tmp_path / "o", resume=state)


def test_a_state_without_its_record_is_enough(first, digits_file, tmp_path):
    shutil.copy(first / "state.safetensors", tmp_path / "state.safetensors")
    train.run(NEXT, digits_file, tmp_path / "o", resume=tmp_path / "state.safetensors")
    train.run(NEXT, digits_file, tmp_path / "p", resume=first / "state.safetensors")
    one, other = (tmp_path / name / "model.safetensors" for name in ("o", "p"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    "settings, files, wanted",
    [
        (NEXT, {"resume": "s", "init": "m"}, "found --resume .* and --init .*; allowed: one"),
        (NEXT, {}, "first_kimg is 1 without --resume"),
        (changed(NEXT, first_kimg=2), {"resume": "s"}, "first_kimg is 2; allowed: < last_kimg = 2"),
        (changed(SMALL, target="euler"), {}, "target is 'euler' without --init; allowed: own"),
    ],
)
def test_a_run_has_one_start(first, digits_file, tmp_path, settings, files, wanted):
    names = {"s": "state.safetensors", "m": "model.safetensors"}
    given = {option: first / names[name] for option, name in files.items()}
    with pytest.raises(ValueError, match=wanted):
        train.run(settings, digits_file, tmp_path / "o", **given)


def test_a_start_with_another_network_is_named(digits_file, tmp_path):
    wide = changed(SMALL, network=SMALL["network"] | {"channels": 16})
    train.run(wide, digits_file, tmp_path / "wide")
    model = tmp_path / "wide" / "model.safetensors"
    with pytest.raises(ValueError, match=f"{model}: the start.s network is .*; allowed: "):
        train.run(SMALL, digits_file, tmp_path / "o", init=model)
