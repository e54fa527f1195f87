"""The prepared file: safetensors reads it too, and it is never all in memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file

from ect.data import file
from ect.runtime.checkpoint import CheckpointError

PIXELS = arrays(np.uint8, (7, 3, 2, 3))


def written(path, splits, chunk, about):
    with file.writing(path, about) as writer:
        for split, pixels in splits.items():
            for i in range(0, len(pixels), chunk):
                part = pixels[i : i + chunk]
                writer.add(split, part, range(i, i + len(part)))
    return writer


@given(PIXELS, PIXELS, st.integers(1, 8))
def test_safetensors_reads_the_same_arrays(tmp_path_factory, train, test, chunk):
    path = tmp_path_factory.mktemp("prepared") / "d.safetensors"
    splits, about = {"train": train, "test": test[:4]}, {"classes": ["Ärger", 'a "b"', "猫"]}
    written(path, splits, chunk, about)
    arrays = load_file(path)
    assert sorted(arrays) == ["test", "test_labels", "train", "train_labels"]
    for split, whole in splits.items():
        pixels, labels, found = file.read(path, split)
        assert pixels.shape == whole.shape and found == about
        for same in (pixels[:], np.stack(list(pixels)), arrays[split]):
            assert np.array_equal(same, whole)
        assert np.array_equal(pixels[[3, 0, 3]], whole[[3, 0, 3]])
        assert labels.tolist() == arrays[f"{split}_labels"].tolist() == list(range(len(whole)))


@given(PIXELS, st.integers(1, 8))
def test_moments_are_exact_however_the_images_come(tmp_path_factory, pixels, chunk):
    path = tmp_path_factory.mktemp("prepared") / "d.safetensors"
    mean, deviation = written(path, {"train": pixels}, chunk, {}).moments("train")
    values = [int(x) for x in pixels.ravel()]
    assert mean == sum(values) / len(values)
    assert deviation == pytest.approx(pixels.std(), rel=1e-12, abs=1e-12)
    assert (deviation == 0) == (len(set(values)) == 1)


def test_many_classes_fit_into_the_header(tmp_path):
    about = {"classes": [f"класс {k}" for k in range(3000)]}
    written(tmp_path / "d", {"train": np.zeros((2, 1, 1, 1), np.uint8)}, 1, about)
    assert file.read(tmp_path / "d", "train")[2] == about


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.99])
def test_a_torn_or_foreign_file_is_named(tmp_path, share):
    written(tmp_path / "d", {"train": np.zeros((90, 8, 8, 1), np.uint8)}, 9, {})
    whole = (tmp_path / "d").read_bytes()
    (tmp_path / "torn").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match="torn: not a readable dataset"):
        file.read(tmp_path / "torn", "train")
    np.savez(tmp_path / "old.npz", train=np.zeros(3))
    with pytest.raises(CheckpointError, match=r"old\.npz: not a readable dataset"):
        file.read(tmp_path / "old.npz", "train")


MEMORY = """
import json, re, sys
from ect.data.batches import Images
from ect.data.prepare import run as prepare
from ect.evaluation import features
features.BATCH = 64  # images in the network at once
def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
def use(path, most_images):
    settings = {"source": "images", "path": path, "held_out": 10, "split_seed": 0}
    prepare(settings | {"normalize": "standard", "max_images": most_images}, path + ".file", 2)
    images = Images(path + ".file")
    for seen in range(0, len(images.pixels), 64):
        images.batch(0, seen, 64)
    features.of_images(lambda pixels: images.encode(pixels).mean((1, 2, 3))[:, None], images.pixels)
use(sys.argv[1], 600)
before = most()
use(sys.argv[1], 4000)
print(json.dumps((most() - before) / 1024))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_preparing_and_reading_hold_a_small_part_of_the_images(tmp_path):
    """4,000 images of 64x64x3 are 47 MiB: memory grows by much less, however they are used."""
    size = b"P6 64 64 255\n"
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for index in range(4000):
        (tmp_path / "images" / f"{index}.ppm").write_bytes(size + random.bytes(64 * 64 * 3))
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "images")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) < 20
