"""Image files of random pixels, and the datasets that `prepare` makes of them."""

import numpy as np
from PIL import Image

from ect.data.batches import Images
from ect.data.prepare import run

BASE = {"source": "images", "normalize": "unit", "held_out": 3, "split_seed": 0}


def draw(path, seed, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def prepared(path, out, **changes):
    run(BASE | {"path": str(path)} | changes, out, 2)
    return out


def rows(file):
    """The images of a dataset file, each with its class's name."""
    found = []
    for split in ("train", "test"):
        images = Images(file, split)
        names = images.classes or [None]
        found += [(x.tobytes(), names[k]) for x, k in zip(images.pixels, images.labels)]
    return sorted(found, key=repr)
