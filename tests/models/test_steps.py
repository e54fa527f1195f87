"""A number of steps stands for the study's sampler, in a program and in an exported folder."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import ect
from ect.cli.main import main
from ect.data.batches import Images
from ect.models import build, steps
from ect.runtime import checkpoint
from tests.helpers.runs import PRETRAIN

STUDY = {
    "one_step": {"times": [], "sigma_min": 0.003},
    "two_step": {"times": [0.5], "sigma_min": 0.003},
    "three_step": {"times": [1.0, 0.25]},
}


@pytest.fixture(scope="module")
def sampled(digits_file, tmp_path_factory, request):
    """The folder of a model whose study drew images with STUDY and Heun."""
    import torch

    folder = tmp_path_factory.mktemp("k1")
    about = build.description(PRETRAIN, Images(digits_file))
    torch.manual_seed(0)
    weights = build.build_network(about["network"], about["shape"]).state_dict()
    noisy = {name: value + 0.1 * torch.randn_like(value) for name, value in weights.items()}
    checkpoint.save(folder / "model.safetensors", noisy, **about)
    for name, options in STUDY.items():
        draw(folder, name, kind="multistep", options=options)
    draw(folder, "heun", kind="heun", options={"steps": 2})
    return folder


def draw(folder, name, **sampling):
    settings = {"images": 3, "batch": 250, "seed": 0, "labels": None} | sampling
    words = ["--model", str(folder / "model.safetensors"), "--out", str(folder / name)]
    assert main(["sample", json.dumps(settings), *words]) == 0


@pytest.fixture
def copy(sampled, tmp_path):
    """A copy of that folder, to change."""
    return shutil.copytree(sampled, tmp_path / "copy")


def drawn(folder, name):
    return np.load(folder / name / "samples.npz")["arr_0"]


@pytest.mark.parametrize("name", STUDY)
def test_steps_are_the_studys_to_the_bit(sampled, name, recwarn):
    model, count = ect.load(sampled), steps.count(STUDY[name])
    assert np.array_equal(model.sample(3, steps=count), drawn(sampled, name))
    found = model.sampler(count)
    assert found.options == STUDY[name] and found.of_study and name in found.words
    assert not [warning for warning in recwarn if "CIFAR-10" in str(warning.message)]


def test_the_bytes_of_the_model_are_unchanged_and_times_win(sampled):
    model = ect.load(sampled)
    given = model.sample(3, steps=2, times=[0.821])
    assert not np.array_equal(given, model.sample(3, steps=2))
    assert "times" not in checkpoint.load(sampled / "model.safetensors")[1]


def alone(folder, cwd, *words):
    command = [sys.executable, "-I", str(folder / "sample.py"), "--n", "3", *words]
    return subprocess.run(command, cwd=cwd, env={"OMP_NUM_THREADS": "1"}, capture_output=True,
                          text=True, check=True)  # fmt: skip


def test_an_exported_folder_carries_them_and_its_script_says_so(sampled, tmp_path):
    out = tmp_path / "out"
    assert main(["export", str(sampled / "model.safetensors"), "--out", str(out)]) == 0
    same = (out / "model.safetensors").read_bytes() == (sampled / "model.safetensors").read_bytes()
    assert same and json.loads((out / "sampling.json").read_text()) == STUDY
    said = alone(out, tmp_path, "--steps", "2").stderr.strip()
    assert said == "2 steps at s = 80, 0.5 with sigma_min 0.003: the study's two_step"
    rows = np.asarray(Image.open(tmp_path / "samples.png")).reshape(2, 8, 2, 8).swapaxes(1, 2)
    assert np.array_equal(rows.reshape(4, 8, 8, 1)[:3], drawn(sampled, "two_step"))
    assert "the times given" in alone(out, tmp_path, "--times", "0.821").stderr
    assert ect.load(out).samplers == STUDY
    card = (out / "README.md").read_text()
    assert "- `two_step`: 2 steps at s = 80, 0.5 with sigma_min 0.003" in card


def test_images_that_were_never_stored_count_too(copy):
    """As where the study keeps their features alone: features.json has the settings of sampling."""
    record = json.loads((copy / "two_step" / "run.json").read_text())
    record["settings"] = {"features": {}, "sampling": record["settings"]}
    (copy / "two_step" / "features.json").write_text(json.dumps(record))
    (copy / "two_step" / "run.json").unlink()
    assert ect.load(copy).samplers == STUDY


def edited(copy, change):
    path = copy / "two_step" / "run.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda copy: shutil.rmtree(copy / "two_step"),
        lambda copy: (copy / "two_step" / "run.json").write_text("null"),
        lambda copy: (copy / "two_step" / "run.json").write_text('{"settings": {"kind'),
        lambda copy: (copy / "two_step" / "run.json").write_text('{"settings": [], "inputs": 3}'),
        lambda copy: edited(copy, lambda record: record.update(inputs={"a": "0"})),
        lambda copy: edited(copy, lambda record: record["settings"]["options"].update(times=["x"])),
    ],
    ids=["none", "null", "torn", "no record", "of another model", "no times"],
)  # fmt: skip
def test_without_a_record_of_this_model_it_is_ects_with_a_warning(copy, spoil):
    spoil(copy)
    model = ect.load(copy)
    with pytest.warns(UserWarning, match=r"^2 steps at s = 80, 0\.821: ECT's for CIFAR-10, as no"):
        images = model.sample(3, steps=2)
    assert np.array_equal(images, model.sample(3, times=[0.821]))


def test_two_meanings_of_a_number_are_named(copy):
    draw(copy, "other", kind="multistep", options={"times": [0.7]})
    with pytest.raises(ValueError, match=r"steps is 2, and .*other, .* 0\.7; two_step, .* times$"):
        ect.load(copy).sample(3)
    shutil.rmtree(copy / "other")
    draw(copy, "again", kind="multistep", options=STUDY["two_step"])
    assert "again and two_step" in ect.load(copy).sampler(2).words


@pytest.mark.parametrize(
    "text",
    [
        "[]", "{", '{"a": 3}', '{"a": {}}', '{"a": {"times": [0.5, 1]}}', '{"a": {"times": [NaN]}}',
        '{"a": {"times": [90]}}', '{"a": {"times": ["0.5"]}}', '{"a": {"times": [], "steps": 2}}',
        '{"a": {"times": [], "sigma_min": -1}}',
    ],
)  # fmt: skip
def test_a_sampling_json_that_is_none_is_one_line(copy, text):
    (copy / "sampling.json").write_text(text)
    with pytest.raises(ValueError, match=r"sampling\.json: ") as error:
        ect.load(copy)
    assert "\n" not in str(error.value)
