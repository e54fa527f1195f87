"""How images are resized: laws of both ways, and that results say which one it was."""

import json

import numpy as np
import pytest
from PIL import Image

from ect.config.dataset import Dataset
from ect.data.batches import Images
from ect.data.decode import pixels_of
from ect.data.prepare import run
from ect.evaluation import evaluate, features

PHOTOS = {"source": "images", "path": "photos", "held_out": 4}


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def dhariwal(pixels, side):
    return pixels_of(Image.fromarray(pixels), 3, side, "dhariwal")


def halved(pixels):
    """The means of 2x2 pixels, first of columns, then of rows, each rounded."""
    whole = pixels.astype(int)
    columns = (whole[:, ::2] + whole[:, 1::2] + 1) // 2
    return (columns[::2] + columns[1::2] + 1) // 2


@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_a_power_of_two_is_halved_by_means_alone(times):
    pixels = picture(16 * 2**times, 16 * 2**times)
    expected = pixels.astype(int)
    for _ in range(times):
        expected = halved(expected)
    assert np.abs(dhariwal(pixels, 16).astype(int) - expected).max() <= times


def test_halving_stops_below_twice_the_side():
    """At 31 pixels the bicubic filter alone makes 16."""
    pixels = picture(31, 31)
    expected = Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(dhariwal(pixels, 16), expected)
    smaller = Image.fromarray(picture(62, 62)).reduce(2)
    expected = smaller.resize((16, 16), Image.Resampling.BICUBIC)
    assert np.abs(dhariwal(picture(62, 62), 16).astype(int) - np.asarray(expected)).max() <= 2


@pytest.mark.parametrize("shape, place", [((16, 40), (0, 12)), ((40, 16), (12, 0))])
def test_the_square_is_cut_from_the_centre_after_it(shape, place):
    pixels = picture(*shape)
    top, left = place
    assert np.array_equal(dhariwal(pixels, 16), pixels[top : top + 16, left : left + 16])


@pytest.mark.parametrize("shape", [(100, 70), (33, 64), (500, 375), (9, 12)])
def test_every_image_is_a_square_and_constants_stay(shape):
    assert dhariwal(picture(*shape), 16).shape == (16, 16, 3)
    assert (dhariwal(np.full((*shape, 3), 137, np.uint8), 16) == 137).all()


def test_the_two_ways_make_different_images():
    pixels = picture(100, 130)
    lanczos = pixels_of(Image.fromarray(pixels), 3, 16)
    assert np.array_equal(lanczos, pixels_of(Image.fromarray(pixels), 3, 16, "lanczos"))
    assert np.abs(lanczos.astype(int) - dhariwal(pixels, 16)).mean() > 1


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(8):
        Image.fromarray(picture(40, 50, index)).save(folder / f"{index}.png")
    return folder


def prepared(photos, **more):
    settings = {"split_seed": 0, "normalize": "unit", "resolution": 8}
    settings |= PHOTOS | {"path": str(photos)} | more
    out = photos.parent / f"{more.get('resize')}.safetensors"
    run(settings, out)
    return Images(out)


def test_a_dataset_knows_how_it_was_made(photos):
    one, other = prepared(photos), prepared(photos, resize="dhariwal")
    assert (one.resize, other.resize) == ("lanczos", "dhariwal")
    assert not np.array_equal(one.pixels[:], other.pixels[:])
    assert "resize" not in (photos.parent / "None.safetensors").read_bytes().decode("latin-1")


@pytest.mark.parametrize("resize", ["lanczos", "dhariwal"])
def test_reference_and_metrics_know_it_too(tmp_path, resize):
    import torch

    paths = [tmp_path / f"{name}.safetensors" for name in ("reference", "drawn")]
    for seed, path in enumerate(paths):
        values = torch.randn(50, 4, generator=torch.Generator().manual_seed(seed))
        features.save(path, values, "space", (3, 8, 8), resize if seed == 0 else "lanczos")
    assert features.resize_of(paths[0]) == resize
    settings = {"features": {"extractor": "classifier", "kd_subsets": 2}, "cell": {}}
    evaluate.run(settings, paths[1], None, tmp_path / "metrics.json", reference=paths[0])
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found.get("resize") == (None if resize == "lanczos" else resize)


def test_settings_name_it_only_where_it_is_not_lanczos(tmp_path):
    images = {"source": "images", "path": str(tmp_path), "held_out": 4, "resolution": 8}
    assert "resize" not in Dataset(**images).resolved()
    assert "resize" not in Dataset(**images, resize="lanczos").resolved()
    assert Dataset(**images, resize="dhariwal").resolved()["resize"] == "dhariwal"
    imagenet = {"source": "imagenet64", "path": str(tmp_path / "no"), "held_out": 4}
    assert Dataset(**imagenet).resolved()["resize"] == "dhariwal"
    assert "resize" not in Dataset(**imagenet, resize="lanczos").resolved()
    assert Dataset(source="digits", held_out=4).resizing is None


@pytest.mark.parametrize(
    "more, words",
    [
        ({"resize": "dhariwal"}, "resize is 'dhariwal' without resolution"),
        ({"source": "cifar10", "resize": "dhariwal"}, "resize is set for 'cifar10'"),
        ({"resolution": 8, "resize": "box"}, "'lanczos' or 'dhariwal'"),
    ],
)
def test_a_resize_that_cannot_be_is_told(tmp_path, more, words):
    with pytest.raises(ValueError, match=words):
        Dataset(**{"source": "images", "path": str(tmp_path), "held_out": 4} | more)
