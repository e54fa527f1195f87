"""The Python interface draws what the command line draws."""

import copy
import itertools
import json
import os
import pickle
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

import ect
from ect.cli.main import main
from ect.consistency import C_NOISE, Consistency
from ect.data.batches import Images
from ect.models import draw
from ect.models.build import PROCESSES
from ect.models.export import export
from ect.process import Tabulated
from ect.training import train
from tests.helpers.runs import PRETRAIN, changed

CHAIN = partial(Tabulated, "linear", 1e-4, 0.02, 1000)


@pytest.fixture(scope="module", params=[0, 10], ids=["plain", "classes"])
def run(request, digits_file, tmp_path_factory):
    """The folder of a run, and the number of its classes."""
    out = tmp_path_factory.mktemp("run")
    settings = changed(PRETRAIN, network__classes=request.param, last_kimg=0)
    train.run(settings, digits_file, out)
    return out, request.param


@pytest.mark.parametrize(
    "options, times",
    [({"steps": 1}, []), ({}, [0.821]), ({"times": [5, 0.5]}, [5.0, 0.5]), ({"times": []}, [])],
    ids=str,
)
def test_images_are_the_command_lines(run, tmp_path, options, times):
    folder, classes = run
    labels = [3, 1, 4] if classes else None
    settings = {"kind": "multistep", "options": {"times": times}, "images": 260, "batch": 250}
    settings |= {"seed": 7, "labels": labels}
    words = ["--model", str(folder / "model.safetensors"), "--out", str(tmp_path)]
    assert main(["sample", json.dumps(settings), *words]) == 0
    images = ect.load(folder).sample(260, seed=7, labels=labels, **options)
    assert images.dtype == np.uint8 and images.shape == (260, 8, 8, 1)
    assert np.array_equal(images, np.load(tmp_path / "samples.npz")["arr_0"])


def test_a_file_and_its_folder_are_one_model(run, digits_file):
    folder, _ = run
    one, other = ect.load(folder), ect.load(folder / "model.safetensors")
    assert np.array_equal(one.sample(3), other.sample(3))
    channels, height, width = Images(digits_file).shape
    assert one.shape == (height, width, channels)


def test_another_seed_is_another_image(run):
    model = ect.load(run[0])
    assert not np.array_equal(model.sample(4), model.sample(4, seed=4))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"n": 0}, "n is 0; allowed: .* from 1 to [1-9]"),
        ({"n": 2.5}, "n is 2.5"),
        ({"n": True}, "n is True"),
        ({"n": "4"}, "n is '4'"),
        ({"n": None}, "n is None"),
        ({"n": 2, "steps": 1.5}, "steps is 1.5; allowed: 1, 2, or times"),
        ({"n": 2, "steps": True}, "steps is True; allowed: 1, 2, or times"),
        ({"n": torch.tensor(True)}, r"n is tensor\(True\); allowed: "),
        ({"n": torch.tensor([3])}, r"n is tensor\(\[3\]\); allowed: "),
        ({"n": 2, "steps": torch.tensor([1])}, r"steps is tensor\(\[1\]\); allowed: "),
        ({"n": 2, "times": np.array([True])}, r"times is array\(\[ True\]\); allowed: "),
        ({"n": 2, "times": torch.empty(1, device="meta")}, "times is tensor.*; allowed: "),
        ({"n": 2, "times": itertools.repeat(0.5)}, "times is repeat.*; allowed: falling"),
        ({"n": 2, "labels": itertools.cycle([1])}, "labels is .*; allowed: a list of classes"),
        ({"n": 2, "steps": 2, "times": []}, r"steps: found 2 with times \[\]; allowed: 1, or"),
        ({"n": 2, "steps": "2", "times": [1]}, "steps: found '2' with times"),
        ({"n": 2, "seed": -1}, r"seed is -1; allowed: a whole number >= 0 and <= 10\^18"),
        ({"n": 2, "seed": 1.5}, "seed is 1.5"),
        ({"n": 2, "seed": "1"}, "seed is '1'"),
        ({"n": 2, "seed": None}, "seed is None"),
        ({"n": 2, "seed": 10**30}, "seed is 10+; allowed"),
        ({"n": 2, "times": "51"}, "times is '51'; allowed: falling"),
        ({"n": 2, "times": ["5", "1"]}, "times is "),
        ({"n": 2, "times": bytearray(b"\x05\x01")}, "times is bytearray.*; allowed: falling"),
        ({"n": 2, "times": 0.5}, "times is 0.5"),
        ({"n": 2, "times": [None]}, "times is "),
        ({"n": 2, "times": [float("nan")]}, "times is "),
        ({"n": 2, "times": [True]}, "times is "),
        ({"n": 2, "times": {0.5: 1}}, "times is "),
        ({"n": 2, "times": np.float32(0.5)}, "times is "),
        ({"n": 2, "times": [[0.5, 0.2]]}, "times is "),
        ({"n": 2, "labels": 3}, "labels is 3; allowed: a list of classes"),
        ({"n": 2, "labels": []}, r"labels is \[\]"),
        ({"n": 2, "labels": "31"}, "labels is '31'"),
        ({"n": 2, "labels": [1.5]}, r"labels is \[1.5\]"),
        ({"n": 2, "labels": [-1]}, "labels is "),
        ({"n": 2, "labels": [None]}, "labels is "),
        ({"n": 2, "labels": [99]}, "labels has 99"),
        ({"n": 2, "steps": 3}, "steps is 3; allowed: 1, 2, or times"),
        ({"n": 2, "steps": [2]}, r"steps is \[2\]; allowed: 1, 2, or times"),
        ({"n": 2, "times": [1e-300]}, "times is .*; allowed: falling noise levels below 80, down"),
        ({"n": 2, "times": [0.5, 1.0]}, "times is .*; allowed: falling"),
        ({"n": 2, "times": [80.0]}, "below 80, down to 1e-06"),
        ({"n": 2, "times": [0]}, "below 80, down to 1e-06"),
    ],
    ids=lambda given: re.sub(" at 0x[0-9a-f]*", "", str(given)),
)
def test_what_cannot_be_drawn_is_named(run, options, words):
    with pytest.raises(ValueError, match=words):
        ect.load(run[0]).sample(**options)


@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_path_is_not_the_working_directory(run, monkeypatch, path):
    monkeypatch.chdir(run[0])
    with pytest.raises(ValueError, match=f"^path: found '{path}'; allowed: that of a model"):
        ect.load(path)


def test_numbers_of_numpy_and_torch_are_numbers(run):
    folder, classes = run
    model, labels = ect.load(folder), [3, 1] if classes else None
    wanted = model.sample(3, seed=7, times=[5.0, 0.5], labels=labels)
    given = np.array(labels) if classes else None
    for times in (np.array([5.0, 0.5]), (5, np.float32(0.5)), torch.tensor([5.0, 0.5])):
        found = model.sample(np.int64(3), seed=np.uint8(7), times=times, labels=given)
        assert np.array_equal(found, wanted)
    two = np.int32(2)
    assert model.sampler(two) == model.sampler(2)


@pytest.mark.parametrize("dtype, place", [("float64", "cpu"), ("float32", "meta")])
def test_torchs_defaults_do_not_matter(run, dtype, place):
    wanted = ect.load(run[0]).sample(3)
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    torch.set_default_dtype(getattr(torch, dtype))
    torch.set_default_device(place)
    try:
        found = ect.load(run[0]).sample(3)
        assert torch.empty(0).dtype == getattr(torch, dtype)
        assert torch.get_default_device().type == place
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert np.array_equal(found, wanted)
    assert torch.equal(torch.rand(3), drawn), "the caller's own numbers"


def test_what_the_module_takes(run):
    module = ect.load(run[0]).module()
    x_t, t = torch.zeros(2, 1, 8, 8), torch.ones(2)
    wrong = {
        "x_t: found torch.uint8, 4 axes; allowed: a tensor": (x_t.byte(), t),
        "x_t: found torch.float32, 3 axes": (x_t[0], t),
        "x_t: found <class 'numpy.ndarray'>": (x_t.numpy(), t),
        r"x_t: found images \(1, 7, 7\); allowed: \(1, 8, 8\)": (x_t[..., 1:, 1:], t),
        r"t: found torch.int64, 1 axes; allowed: a tensor \(B,\)": (x_t, t.long()),
        "t: found <class 'float'>": (x_t, 1.0),
        "t: found 3 times; allowed: 2, as there are images": (x_t, torch.ones(3)),
    }
    for words, given in wrong.items():
        with pytest.raises(ValueError, match=words):
            module(*given)


@pytest.mark.parametrize("change", [{"labels": [99]}, {"kind": "flow_map"}])
def test_a_sampling_that_is_refused_leaves_nothing(run, tmp_path, capsys, change):
    settings = {"kind": "multistep", "options": {"times": []}, "images": 2, "batch": 2, "seed": 0}
    words = ["--model", str(run[0] / "model.safetensors"), "--out", str(tmp_path / "out")]
    assert main(["sample", json.dumps(settings | change), *words]) == 1
    assert "allowed: " in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_pipe_is_no_model(tmp_path):
    """Reading one would wait for ever."""
    os.mkfifo(tmp_path / "model.safetensors")
    for place in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(ValueError, match=r"model\.safetensors: found a device, pipe or socket"):
            ect.load(place)


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "{}", "--model", "pipe", "--out", "o"],
        ["train", "{}", "--data", "pipe", "--out", "o"],
        ["export", "pipe", "--out", "o"],
        ["tabulate", "split", "--metrics", "pipe", "--out", "o"],
        ["import-model", "edm", "pipe", "--out", "o"],
        ["import-model", "ect", "pipe", "--out", "o"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_no_verb_waits_for_a_pipe(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    assert main(words) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "pipe" in line and "a device, pipe or socket; allowed: " in line


def test_what_is_no_model_is_named(run, tmp_path):
    with pytest.raises(
        ValueError, match=r"state\.safetensors: content: found no network, .*; allowed: a"
    ):
        ect.load(run[0] / "state.safetensors")
    with pytest.raises(ValueError, match=r"none\.safetensors: not a readable.*; allowed"):
        ect.load(tmp_path / "none.safetensors")


def test_the_lines_in_the_docstring_run(run, tmp_path):
    """As they stand, with a model at the place that they name."""
    lines = [line.strip() for line in ect.__doc__.splitlines() if line.startswith("    ")]
    place = tmp_path / lines[1].split('"')[1]
    place.parent.mkdir(parents=True)
    place.write_bytes((run[0] / "model.safetensors").read_bytes())
    code = "\n".join([*lines, "assert images.shape == (16, 8, 8, 1), images.shape"])
    env = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=False)
    assert done.returncode == 0 and len(lines) == 3


def test_no_images_are_refused_below_too(run):
    model = ect.load(run[0])
    settings = {"kind": "multistep", "options": {}, "images": 0, "batch": 1, "seed": 0}
    with pytest.raises(ValueError, match="images is 0; allowed: >= 1"):
        draw.draw(model.f, model.process, model.about, settings)


class NoPath(os.PathLike):
    def __fspath__(self):
        return 5

    def __repr__(self):
        return "NoPath()"


@pytest.mark.parametrize("path", [None, 5, b"model", [], {}, True, NoPath()], ids=repr)
def test_what_is_no_path_is_named(path):
    with pytest.raises(ValueError, match=r"path: found"):
        ect.load(path)


@pytest.mark.parametrize("path", ["x" * 5000, "x y " * 1250, "x/y" * 1600, "x\n" * 2500, "x\0y"])
def test_a_path_that_no_file_can_have_is_one_short_line(path, run):
    for function in (
        ect.load,
        lambda p: ect.load(run[0], [p]),
        partial(export, run[0] / "model.safetensors"),
    ):
        with pytest.raises(ValueError) as caught:
            function(path)
        line = str(caught.value)
        assert len(line) < 600 and line.isprintable() and "; allowed: " in line


@pytest.mark.parametrize(
    "way", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_a_copy_draws_the_same_images(run, way):
    model = ect.load(run[0])
    model.sample(1, seed=3)
    other = way(model)
    assert np.array_equal(other.sample(4), model.sample(4))
    assert other.about == model.about and other.process is other.f.process
    x, t = torch.randn(2, 1, 8, 8), torch.rand(2)
    label = (torch.tensor([0, 1]),) if run[1] else ()
    assert torch.equal(way(model.module())(x, t, *label), model.module()(x, t, *label))


@pytest.mark.parametrize("c_noise", C_NOISE)
@pytest.mark.parametrize("process", [*PROCESSES.values(), CHAIN])
def test_every_process_and_label_of_the_noise_can_be_pickled(process, c_noise):
    one = process()
    other = pickle.loads(pickle.dumps(Consistency(None, one, "edm", 0.5, c_noise)))
    t = torch.tensor([0.2, 0.7])
    assert torch.equal(other.c_noise(other.process, t), C_NOISE[c_noise](one, t))


@pytest.mark.parametrize("plugins", [5, None, [5], {"a.py": 1}, "a.py"], ids=repr)
def test_plugins_are_a_list_of_files(plugins, run):
    with pytest.raises(ValueError, match=r"plugins: found .*; allowed: a list of Python files"):
        ect.load(run[0], plugins=plugins)


def test_a_plugin_that_is_not_there_is_named(run):
    with pytest.raises(ValueError, match=r"plugins: .*none\.py"):
        ect.load(run[0], plugins=["none.py"])


CHANGES = {
    "half": lambda model: model.f.network.half(),
    "meta": lambda model: model.f.network.to("meta"),
    "no f": lambda model: object.__setattr__(model, "f", lambda x, t: x),
    "no process": lambda model: object.__setattr__(model, "process", "ve"),
    "no samplers": lambda model: object.__setattr__(model, "samplers", None),
    "rising": lambda model: model.samplers.update(two={"times": [1.0, 5.0]}),
    "sigma_min": lambda model: model.samplers.update(two={"times": [1.0], "sigma_min": -1}),
    "empty": lambda model: model.about.clear(),
    "shape": lambda model: model.about.update(shape="8"),
    "scale": lambda model: model.about.update(scale=0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_model_that_was_changed_is_named(change, run):
    model = ect.load(run[0])
    change(model)
    with pytest.raises(ValueError, match=r"^model: .*; allowed: "):
        model.sample(2, steps=1)
    with pytest.raises(ValueError, match=r"^model: .*; allowed: "):
        model.module()


@pytest.mark.parametrize(
    "times",
    [
        np.array([1 + 2j]), [np.complex64(1)], torch.tensor([1 + 0j]),
        torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.strided),
    ],
    ids=["numpy", "scalar", "torch", "nested"],
)  # fmt: skip
def test_times_that_are_no_real_numbers_are_named(times, run):
    with pytest.raises(ValueError, match=r"^times is .*; allowed: falling noise levels"):
        ect.load(run[0]).sample(1, times=times)


@pytest.mark.filterwarnings("error:Converting a tensor with requires_grad")
def test_times_with_a_gradient_are_times(run):
    model, times = ect.load(run[0]), torch.tensor([5.0], requires_grad=True)
    assert np.array_equal(model.sample(2, times=times), model.sample(2, times=[5.0]))
