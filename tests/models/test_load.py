"""The Python interface draws what the command line draws."""

import json
import subprocess
import sys

import numpy as np
import pytest

import ect
from ect.cli.main import main
from ect.data.batches import Images
from ect.models import draw
from ect.training import train
from tests.helpers.runs import PRETRAIN, changed


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
        ({"n": 0}, "n is 0; allowed: .* >= 1"),
        ({"n": 2.5}, "n is 2.5"),
        ({"n": 2, "steps": 3}, "steps is 3; allowed: 1, 2, or times"),
        ({"n": 2, "steps": [2]}, r"steps is \[2\]; allowed: 1, 2, or times"),
        ({"n": 2, "times": [0.5, 1.0]}, "times is .*; allowed: falling"),
        ({"n": 2, "times": [80.0]}, "between 80 and 0"),
        ({"n": 2, "times": [0]}, "between 80 and 0"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_named(run, options, words):
    with pytest.raises(ValueError, match=words):
        ect.load(run[0]).sample(**options)


def test_what_is_no_model_is_named(run, tmp_path):
    with pytest.raises(
        ValueError, match=r"state\.safetensors: content: found no network, .*; allowed: a"
    ):
        ect.load(run[0] / "state.safetensors")
    with pytest.raises(ValueError, match=r"none\.safetensors: not a readable"):
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
