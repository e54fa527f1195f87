"""Datasets known by name, from local copies of their files, and what is wrong with these."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from ect.data.batches import Images
from ect.data.prepare import run
from tests.helpers.pictures import draw, prepared, rows


def idx(values):
    """An array in MNIST's format."""
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return head + values.tobytes()


@pytest.mark.parametrize("source, folder", [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_from_a_local_copy(tmp_path, source, folder):
    """torchvision's own splits, in its own order of classes."""
    raw, random, parts = tmp_path / folder / "raw", np.random.default_rng(0), {}
    raw.mkdir(parents=True)
    for name, split, count in (("train", "train", 12), ("t10k", "test", 5)):
        pixels = random.integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{name}-images-idx3-ubyte").write_bytes(idx(pixels))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
        parts[split] = sorted((x.tobytes(), int(k)) for x, k in zip(pixels, labels))
    settings = {"source": source, "normalize": "unit", "split_seed": 0, "path": str(tmp_path)}
    run(settings, tmp_path / "d")
    for split, wanted in parts.items():
        images = Images(tmp_path / "d", split)
        assert images.shape == (1, 28, 28) and len(images.classes) == 10
        assert sorted((x.tobytes(), int(k)) for x, k in zip(images.pixels, images.labels)) == wanted
    run(settings | {"max_images": 7, "held_out": 2, "resolution": 8}, tmp_path / "e")
    assert len(Images(tmp_path / "e").pixels) == 7
    assert Images(tmp_path / "e", "test").pixels[:].shape == (2, 8, 8, 1)
    with pytest.raises(ValueError, match="held_out is 6; allowed: <= 5"):
        run(settings | {"held_out": 6}, tmp_path / "f")


def floats(count):
    """An array of floating-point numbers in MNIST's format."""
    header = struct.pack(">4B3i", 0, 0, 13, 3, count, 28, 28)
    return header + np.zeros((count, 28, 28), ">f4").tobytes()


IMAGES, LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
ARRAYS = {
    "label": (LABELS, idx(np.full(12, 10, np.uint8)), "the label 10 in the split test; allowed: 0"),
    "fewer": (LABELS, idx(np.zeros(11, np.uint8)), "found 12 images and 11 labels in the split"),
    "floats": (IMAGES, floats(12), "no intact MNIST"),
    "labels": (IMAGES, idx(np.zeros(12, np.uint8)), "no intact MNIST"),
    "magic": (IMAGES, b"\0\0\x12\x34" + bytes(99), "no intact MNIST, .*AssertionError"),
}


@pytest.mark.parametrize("name, content, words", ARRAYS.values(), ids=ARRAYS)
def test_arrays_that_are_not_mnists_are_named(tmp_path, name, content, words):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for split in ("train", "t10k"):
        pixels = random.integers(0, 256, (12, 28, 28), np.uint8)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(idx(pixels))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx(np.arange(12, dtype=np.uint8) % 10))
    (raw / name).write_bytes(content)
    settings = {"source": "mnist", "normalize": "unit", "split_seed": 0, "path": str(tmp_path)}
    with pytest.raises(ValueError, match=words) as caught:
        run(settings, tmp_path / "d")
    message = str(caught.value)
    assert str(raw) in message and len(message.splitlines()) == 1 and not (tmp_path / "d").exists()


def test_cifar10_from_a_local_copy(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    folder, pixels = tmp_path / "cifar-10-batches-py", {}
    folder.mkdir()
    for name, split in (("data_batch_1", "train"), ("test_batch", "test")):
        data = np.random.default_rng(len(name)).integers(0, 256, (6, 3072), np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": list(range(6))}))
        planes = data.reshape(6, 3, 32, 32).transpose(0, 2, 3, 1)
        pixels[split] = sorted(image.tobytes() for image in planes)
        listing = [[name, digest_md5(folder / name)]]
        monkeypatch.setattr(CIFAR10, f"{split}_list", listing)
    names = [f"class {k}" for k in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    meta = {"filename": "batches.meta", "key": "label_names"}
    monkeypatch.setattr(CIFAR10, "meta", meta | {"md5": digest_md5(folder / "batches.meta")})
    settings = {"source": "cifar10", "normalize": "unit", "split_seed": 0, "path": str(tmp_path)}
    run(settings, tmp_path / "d")
    for split, wanted in pixels.items():
        images = Images(tmp_path / "d", split)
        assert sorted(x.tobytes() for x in images.pixels) == wanted and images.classes == names


def digest_md5(path):
    from torchvision.datasets.utils import calculate_md5

    return calculate_md5(path)


@pytest.mark.parametrize(
    "source, place, file",
    [
        ("cifar10", "", "cifar-10-python.tar.gz (md5 c58f30108f718f92721af3b95e74349a)"),
        ("mnist", "MNIST/raw", "train-images-idx3-ubyte.gz (md5 f68b3c2dcbeaaa9fbdd348bbdeb94873)"),
        ("fashion_mnist", "FashionMNIST/raw", "t10k-labels-idx1-ubyte.gz (md5 bb300cfdad3c16e7a"),
    ],
)
def test_without_a_network_the_error_says_what_to_put_where(
    tmp_path, monkeypatch, source, place, file
):
    from urllib.error import URLError

    from torchvision.datasets import utils

    def offline(*words, **options):
        raise URLError("no network")

    monkeypatch.setattr(utils, "_get_redirect_url", offline)
    settings = {"source": source, "normalize": "unit", "split_seed": 0, "path": str(tmp_path)}
    with pytest.raises(ValueError, match="no intact") as caught:
        run(settings, tmp_path / "d")
    text = str(caught.value)
    assert str(Path(tmp_path, place)) in text and file in text and "no network" in text
    assert len(text.splitlines()) == 1


def test_imagenet64_is_its_train_folder_at_64(tmp_path):
    for index in range(8):
        draw(tmp_path / "train" / f"n{index % 2}" / f"{index}.png", index, (70, 66))
    draw(tmp_path / "val" / "v.png", 0)
    out = tmp_path / "d"
    prepared(tmp_path, out, source="imagenet64")
    assert Images(out).shape == (3, 64, 64) and Images(out).classes == ["n0", "n1"]
    same = prepared(tmp_path / "train", tmp_path / "e", classes="folders", resolution=64)
    assert rows(out) == rows(same)
