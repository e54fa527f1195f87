"""Dataset files, and batches that depend on (seed, images seen) alone."""

import itertools

import numpy as np
import pytest
import torch

from ect.data.batches import Images
from ect.data.prepare import run
from ect.data.sources import digits
from ect.runtime.checkpoint import CheckpointError
from ect.runtime.seeds import seed_of


@pytest.fixture(scope="module")
def images(digits_file):
    return Images(digits_file)


@pytest.mark.parametrize("held_out, count", [(0.2, 359), (0.0001, 1), (0.5, 898)])
def test_a_share_is_the_number_that_it_comes_to(tmp_path, held_out, count):
    """The nearest whole number, at least 1: 359.4, 0.18 and 898.5 of 1,797."""
    settings = {"source": "digits", "normalize": "unit", "split_seed": 3}
    for name, part in (("share", held_out), ("number", count)):
        run(settings | {"held_out": part}, tmp_path / name / "d")
    assert (tmp_path / "share" / "d").read_bytes() == (tmp_path / "number" / "d").read_bytes()


@pytest.mark.parametrize("held_out", [1, 297, 1500])
def test_prepare_splits_all_digits(tmp_path, held_out):
    path = tmp_path / "digits.safetensors"
    settings = {"source": "digits", "normalize": "unit", "held_out": held_out, "split_seed": 3}
    run(settings, path)
    train, test = Images(path), Images(path, "test")
    found = digits(settings)
    assert (len(train.pixels), len(test.pixels)) == (1797 - held_out, held_out)
    assert train.shape == (1, 8, 8)

    def rows(images, labels):
        return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels))

    both = rows(train.pixels, train.labels) + rows(test.pixels, test.labels)
    originals = [found.read(index) for index in range(len(found.names))]
    assert sorted(both) == rows(
        originals, found.labels
    )  # disjoint, complete, each with its own label
    assert (train.encode(train.pixels[:]).min(), train.encode(train.pixels[:]).max()) == (-1, 1)


def test_all_images_are_trained_with_where_none_is_held_out(tmp_path):
    """In the order of the seed; the range is that of all of them."""
    path = tmp_path / "digits.safetensors"
    settings = {"source": "digits", "normalize": "standard", "split_seed": 3, "held_out": 0}
    record = run(settings, path)
    train, found = Images(path), digits(settings)
    assert record["images"] == {"train": 1797, "test": 0} and record["shape"] == (8, 8, 1)
    order = np.random.default_rng(3).permutation(1797)
    assert np.array_equal(train.pixels[:], np.stack([found.read(i) for i in order]))
    assert train.labels.tolist() == [found.labels[i] for i in order]
    assert train.encode(train.pixels[:]).double().std(correction=0).item() == pytest.approx(0.5)
    with pytest.raises(CheckpointError, match=r"no held-out images; allowed: .*held_out above 0"):
        Images(path, "test")


def test_the_split_is_the_seeds(tmp_path):
    files = []
    for index, seed in enumerate((0, 0, 1)):
        path = tmp_path / f"{index}.safetensors"
        run({"source": "digits", "normalize": "unit", "held_out": 9, "split_seed": seed}, path)
        files.append(path.read_bytes())
    assert files[0] == files[1] != files[2]


def test_holding_out_everything_is_refused(tmp_path):
    settings = {"source": "digits", "normalize": "unit", "held_out": 1797, "split_seed": 0}
    with pytest.raises(ValueError, match="held_out is 1797"):
        run(settings, tmp_path / "digits.safetensors")


def test_standard_images_have_mean_0_and_deviation_half(images):
    x = images.encode(images.pixels[:]).double()
    assert x.mean().item() == pytest.approx(0, abs=1e-6)
    assert x.std(correction=0).item() == pytest.approx(0.5, abs=1e-6)
    assert images.sd == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("normalize", ["standard", "unit"])
def test_decode_inverts_encode_for_every_pixel_value(tmp_path, normalize):
    path = tmp_path / "digits.safetensors"
    run({"source": "digits", "normalize": normalize, "held_out": 9, "split_seed": 0}, path)
    images = Images(path)
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    assert np.array_equal(images.decode(images.encode(pixels)), pixels)
    beyond = images.decode(torch.tensor([-1e3, 1e3]).view(2, 1, 1, 1))
    assert beyond.ravel().tolist() == [0, 255]


@pytest.mark.parametrize(("seen", "size"), [(0, 10), (250, 100), (290, 400), (5_000, 64)])
def test_two_batches_equal_one_big_batch(images, seen, size):
    """Also across the end of an epoch of 297 images, and over more than one."""
    whole = images.batch(1, seen, size)
    for first in (1, size // 2, size - 1):
        parts = [images.batch(1, seen, first), images.batch(1, seen + first, size - first)]
        assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(images.batch(2, seen, size), whole)


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_each_epoch_visits_each_image_once(images, epoch):
    n = len(images.pixels)
    visited = images.decode(images.batch(4, epoch * n, n))
    assert sorted(v.tobytes() for v in visited) == sorted(p.tobytes() for p in images.pixels)
    again = images.decode(images.batch(4, (epoch + 1) * n, n))
    assert not np.array_equal(visited, again)


def test_seeds_of_distinct_parts_are_distinct():
    names = itertools.product(range(20), ("step", "dropout", "epoch"), range(0, 2000, 50))
    parts = [*names, (1,), ("1",), (1, 2), (12,), ("a", "b"), ("ab",), ()]
    seeds = {seed_of(*p) for p in parts}
    assert len(seeds) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(1, "step", 2) == seed_of(1, "step", 2)


def test_labels_of_a_batch_are_those_of_its_images(digits_file):
    images = Images(digits_file)
    pixels = images.decode(images.batch(1, 250, 90))
    labels = images.batch_labels(1, 250, 90)
    for image, label in zip(pixels, labels.tolist()):
        found = [k for k, other in zip(images.labels, images.pixels) if (other == image).all()]
        assert label in found
