"""Files of images: numpy's bytes, the same images back in batches of any size, PNG files."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ect.evaluation import samples


def pixels(count, channels=3):
    shape = (count, 6, 5, channels)
    return np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)


def split(images, size):
    return [images[i : i + size] for i in range(0, len(images), size)]


@pytest.mark.parametrize("size", [1, 7, 20, 33])
def test_the_file_is_numpys_to_the_byte_whatever_the_batches(size, tmp_path):
    images = pixels(20)
    np.savez(tmp_path / "numpy.npz", images)
    samples.write(tmp_path / "ours.npz", 20, split(images, size))
    ours, numpys = ((tmp_path / name).read_bytes() for name in ("ours.npz", "numpy.npz"))
    assert hashlib.sha256(ours).digest() == hashlib.sha256(numpys).digest()
    back = list(samples.read(tmp_path / "ours.npz", size))
    assert [len(part) for part in back] == [len(part) for part in split(images, size)]
    assert (np.concatenate(back) == images).all()


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 12))
def test_regrouped_images_are_the_same_in_batches_of_one_size(sizes, size):
    images = np.arange(sum(sizes))
    batches = np.split(images, np.cumsum(sizes)[:-1]) if sizes else []
    found = list(samples.regrouped(batches, size))
    assert [part.tolist() for part in found] == [part.tolist() for part in split(images, size)]


@pytest.mark.parametrize("channels", [1, 3])
def test_png_files_hold_the_images(channels, tmp_path):
    images = pixels(4, channels)
    samples.write(tmp_path / "s.npz", 4, [images])
    samples.export(tmp_path / "s.npz", tmp_path / "png")
    names = [f"{index:06}.png" for index in range(4)]
    assert sorted(path.name for path in (tmp_path / "png").iterdir()) == names
    back = [np.asarray(Image.open(tmp_path / "png" / name)) for name in names]
    assert (np.stack(back).reshape(images.shape) == images).all()


def test_a_file_that_is_none_or_torn_is_named(tmp_path):
    path = tmp_path / "s.npz"
    samples.write(path, 20, [pixels(20)])
    whole = path.read_bytes()
    for spoilt in (b"no zip", whole[:900]):
        path.write_bytes(spoilt)
        with pytest.raises(ValueError, match=r"s\.npz: not a readable samples\.npz"):
            list(samples.read(path))
    np.savez(path, other=pixels(2))
    with pytest.raises(ValueError, match=r"s\.npz: not a readable samples\.npz"):
        list(samples.read(path))
