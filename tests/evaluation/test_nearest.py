"""Nearest training images, held to plain numpy; a model that copies is seen."""

import json

import numpy as np
import pytest

from ect.cli.main import main
from ect.data.batches import Images
from ect.evaluation import classifier, features, nearest
from ect.report.nearest import load, near
from ect.runtime import checkpoint

SPACE = {"extractor": "classifier", "inception_mode": "clean", "inception_path": None}


@pytest.fixture(scope="module")
def space(digits_file, tmp_path_factory):
    """The arguments of the verb that are files but for the images: a classifier, and the features
    of the training images in its space."""
    folder = tmp_path_factory.mktemp("space")
    options = {"channels": 8, "epochs": 5, "batch": 64, "lr": 3e-3}
    classifier.run(options, digits_file, folder)
    name, extract = classifier.extractor(folder / "classifier.safetensors")
    real, reference = Images(digits_file).pixels[:], folder / "reference.safetensors"
    features.save(reference, features.of_batches(extract, [real]), name, (1, 8, 8))
    return ["--data", digits_file, "--reference", reference,
            "--classifier", folder / "classifier.safetensors"]  # fmt: skip


def found(space, images, folder):
    """What the verb writes of drawn images."""
    np.savez(folder / "samples.npz", images)
    words = ["--samples", folder / "samples.npz", *space, "--out", folder / "nearest.safetensors"]
    assert main(["find-nearest", json.dumps({"features": SPACE}), *map(str, words)]) == 0
    return load(folder / "nearest.safetensors")


@pytest.mark.parametrize("block", [1, 50, 2**25])
def test_the_nearest_are_those_of_plain_numpy_in_blocks_of_any_size(monkeypatch, block):
    """Of two equally near images the first is found."""
    monkeypatch.setattr(nearest, "BLOCK", block)
    draws = np.random.default_rng(0)
    training = draws.integers(0, 256, (23, 4, 4, 3), np.uint8)
    training[17] = training[5]
    images = draws.integers(0, 256, (7, 4, 4, 3), np.uint8)
    images[3] = training[17]
    row, distance = nearest.in_pixels(images, training)
    apart = (images[:, None].astype(float) - training[None]) / 255
    every = np.sqrt(np.square(apart).mean(axis=(2, 3, 4)))
    assert np.array_equal(row, every.argmin(axis=1)) and row[3] == 5 and distance[3] == 0
    assert distance == pytest.approx(every.min(axis=1), rel=1e-12)


def test_copies_of_training_images_are_seen(space, digits_file, tmp_path):
    """At distance 0, and nearer to the training images than to the held-out ones by the Frechet
    distance; a copy of a held-out image is as near as that image."""
    training, test = Images(digits_file).pixels, Images(digits_file, "test").pixels
    copied, about = found(space, training[40:240], tmp_path)
    for kind in ("pixels", "features"):
        assert np.array_equal(copied[f"generated.{kind}.row"], range(40, 240))
        assert copied[f"generated.{kind}.distance"].max() < 1e-6
        assert near(copied, "generated", kind) == 100 and near(copied, "held_out", kind) <= 2
    fd = about["fd"]
    assert fd["generated"]["training"] < fd["generated"]["held_out"]
    assert about["against"] == 297, "as many as there are of each"
    assert np.array_equal(copied["held_out.rows"], np.arange(200) * 1500 // 200)
    honest, about = found(space, test[list(copied["held_out.rows"])], tmp_path)
    for kind in ("pixels", "features"):
        for what in ("row", "distance"):
            one, other = (honest[f"{of}.{kind}.{what}"] for of in ("generated", "held_out"))
            assert np.array_equal(one, other)
    assert about["fd"]["generated"]["training"] == about["fd"]["held_out"]["training"]


def test_no_more_images_are_compared_than_were_drawn_or_held_out(space, tmp_path):
    few, _ = found(space, np.zeros((5, 8, 8, 1), np.uint8), tmp_path)
    assert {len(value) for value in few.values()} == {5}
    many, _ = found(space, np.zeros((1501, 8, 8, 1), np.uint8), tmp_path)
    assert np.array_equal(many["held_out.rows"], range(1500))


def test_images_and_features_of_another_data_set_are_refused(space, tmp_path, capsys):
    np.savez(tmp_path / "samples.npz", np.zeros((5, 9, 8, 1), np.uint8))
    drawn = ["--samples", tmp_path / "samples.npz"]
    words = [*drawn, *space, "--out", tmp_path / "nearest.safetensors"]
    command = ["find-nearest", json.dumps({"features": SPACE})]
    assert main([*command, *map(str, words)]) == 1
    assert "images of 9x8x1; allowed: of 8x8x1" in capsys.readouterr().err
    np.savez(tmp_path / "samples.npz", np.zeros((5, 8, 8, 1), np.uint8))
    tensors, about = checkpoint.load(space[3])
    part = tmp_path / "part.safetensors"
    checkpoint.save(part, {"features": tensors["features"][:9]}, **about)
    words[words.index(space[3])] = part
    assert main([*command, *map(str, words)]) == 1
    said = capsys.readouterr().err
    assert "part.safetensors: features of 9 images; allowed: of the 297 training images" in said
