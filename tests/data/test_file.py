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
from safetensors.numpy import load_file, save_file

from ect.data import file
from ect.data.batches import Images
from ect.report.grid import plot_grid
from ect.runtime.checkpoint import CheckpointError

RANGE = {"shift": 127.5, "scale": 1 / 127.5, "sd": 0.5}
ABOUT = RANGE | {"classes": [str(k) for k in range(200)]}
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
    names = ["Ärger", 'a "b"', "猫", *"cdef"]
    splits, about = {"train": train, "test": test[:4]}, RANGE | {"classes": names}
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
    about = RANGE | {"classes": [f"класс {k}" for k in range(3000)]}
    images = np.zeros((2, 1, 1, 1), np.uint8)
    written(tmp_path / "d", {"train": images, "test": images}, 1, about)
    assert file.read(tmp_path / "d", "train")[2] == about


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.99])
def test_a_torn_or_foreign_file_is_named(tmp_path, share):
    written(tmp_path / "d", {"train": np.zeros((90, 8, 8, 1), np.uint8)}, 9, ABOUT)
    whole = (tmp_path / "d").read_bytes()
    (tmp_path / "torn").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match="torn: not a readable dataset"):
        file.read(tmp_path / "torn", "train")
    np.savez(tmp_path / "old.npz", train=np.zeros(3))
    with pytest.raises(CheckpointError, match=r"old\.npz: not a readable dataset"):
        file.read(tmp_path / "old.npz", "train")


def parts(**changed):
    """What a dataset file of ten images holds, with some of it changed or, where None, left out."""
    images, labels = np.arange(10 * 12, dtype=np.uint8).reshape(10, 2, 2, 3), np.arange(10) % 3
    found = {"train": images, "test": images[:4], "train_labels": labels, "test_labels": labels[:4]}
    return {key: value for key, value in (found | changed).items() if value is not None}


WHOLE = parts()
WRONG_PARTS = {
    "float pixels": ({"train": WHOLE["train"] / np.float32(255)}, "train is .* of F32; allowed:"),
    "float held-out pixels": ({"test": WHOLE["test"].astype(np.float64)}, "test is .* of F64"),
    "int8 pixels": ({"train": WHOLE["train"].astype(np.int8)}, "train is .* of I8"),
    "Boolean pixels": ({"train": WHOLE["train"] > 9}, "train is .* of BOOL"),
    "no channels": ({"train": WHOLE["train"][..., 0]}, r"train is \(10, 2, 2\)"),
    "channels first": ({k: WHOLE[k].swapaxes(1, 3) for k in ("train", "test")}, "of 2x3x2"),
    "no images": ({k: WHOLE[k][:0] for k in ("train", "train_labels")}, "none of them 0"),
    "other test images": ({"test": WHOLE["test"][:, :1]}, "allowed: of one shape"),
    "no held-out images": ({"test": None}, "no 'test'; allowed: 'train', 'test', 'train_labels'"),
    "no images to train": ({"train": None}, "no 'train'"),
    "no labels": ({"train_labels": None}, "no 'train_labels'"),
    "no labels of the test": ({"test_labels": None}, "no 'test_labels'"),
    "a label too few": ({"train_labels": WHOLE["train_labels"][1:]}, "10 images and 9 labels"),
    "a label too many": ({"test_labels": WHOLE["train_labels"]}, "4 images and 10 labels"),
    "float labels": ({"train_labels": WHOLE["train_labels"] * 1.0}, "train_labels is .* of F64"),
    "labels of 32 bits": ({"test_labels": WHOLE["test_labels"].astype(np.int32)}, "of I32"),
    "one-hot labels": ({"train_labels": np.eye(10, dtype=np.int64)}, r"\(10, 10\) of I64"),
    "a label beyond": ({"train_labels": WHOLE["train_labels"] + 1}, "holds 3; allowed: 0 to 2"),
    "a negative label": ({"test_labels": WHOLE["test_labels"] - 1}, "test_labels holds -1"),
}
WRONG_ABOUT = {
    "no mean": ({"shift": None}, "'shift' is null; allowed: a number"),
    "a mean beyond": ({"shift": 256.0}, "shift is 256.0; allowed: 0 to 255"),
    "scale 0": ({"scale": 0}, "scale is 0; allowed: 1e-06 to 1e[+]06"),
    "negative scale": ({"scale": -0.1}, "scale is -0.1"),
    "infinite scale": ({"scale": float("inf")}, "scale is inf"),
    "sd -1": ({"sd": -1}, "sd is -1"),
    "sd NaN": ({"sd": float("nan")}, "sd is nan"),
    "sd a text": ({"sd": "0.5"}, """'sd' is "0.5"; allowed: a number"""),
    "sd true": ({"sd": True}, "'sd' is true"),
    "labels without classes": ({"classes": None}, "holds 1; allowed: 0, as without classes"),
    "classes a number": ({"classes": 3}, "'classes' is 3; allowed: a list or null"),
    "classes a text": ({"classes": "abc"}, "'classes' is .abc.; allowed: a list or null"),
    "empty classes": ({"classes": []}, "allowed: a list of names, or null"),
    "classes as numbers": ({"classes": [0, 1, 2]}, "allowed: a list of names, or null"),
    "a class twice": ({"classes": ["a", "b", "a"]}, "allowed: each name once"),
}


def require_refused(path, message):
    """Each reader names the file and what is wrong, whichever split it asks for."""
    for read in (
        lambda: file.read(path, "train"),
        lambda: file.read(path, "test"),
        lambda: Images(path),
        lambda: plot_grid([], path.parent / "figure", 5, 2, path),
    ):
        with pytest.raises(
            CheckpointError, match=f"{path.name}: not a readable dataset.*{message}"
        ):
            read()


@pytest.mark.parametrize("name", WRONG_PARTS)
def test_images_and_labels_of_another_kind_are_refused(tmp_path, name):
    changed, message = WRONG_PARTS[name]
    about = {"about": json.dumps(RANGE | {"classes": ["a", "b", "c"]})}
    save_file({k: np.ascontiguousarray(v) for k, v in WHOLE.items()}, tmp_path / "whole", about)
    assert len(file.read(tmp_path / "whole", "train")[0]) == 10
    arrays = {k: np.ascontiguousarray(v) for k, v in parts(**changed).items()}
    save_file(arrays, tmp_path / "d", about)
    require_refused(tmp_path / "d", message)


@pytest.mark.parametrize("name", WRONG_ABOUT)
def test_a_meaning_that_no_images_have_is_refused(tmp_path, name):
    changed, message = WRONG_ABOUT[name]
    about = RANGE | {"classes": ["a", "b", "c"]} | changed
    save_file(WHOLE, tmp_path / "d", {"about": json.dumps(about)})
    require_refused(tmp_path / "d", message)


@pytest.mark.parametrize("key", [*RANGE, "classes"])
def test_a_missing_meaning_is_named(tmp_path, key):
    about = RANGE | {"classes": ["a", "b", "c"]}
    del about[key]
    save_file(WHOLE, tmp_path / "d", {"about": json.dumps(about)})
    require_refused(tmp_path / "d", f"found no key '{key}'")


@pytest.mark.parametrize("about", ["", "[]", "3", "{", '{"sd": 1, "sd": 2}', "null"])
def test_metadata_that_is_no_mapping_is_named(tmp_path, about):
    save_file(WHOLE, tmp_path / "d", {"about": about})
    require_refused(tmp_path / "d", "")


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
