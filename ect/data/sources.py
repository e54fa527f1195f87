"""Where images come from: what each `dataset.source` finds, ready to be read one by one.

A source takes the dataset's settings and lists its images. `read` decodes one of them, `decoded`
many in parallel. Loads no torch, except for torchvision's datasets.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ect.data import decode
from ect.data.classes import listed, of_imagenet
from ect.runtime.text import shown
from ect.runtime.versions import setting

LONG = 5000  # characters: longer than any path
CHUNK = 256  # images that are decoded, and kept in memory, at a time


class Found(NamedTuple):
    """The images of a source. The last `tests` of them are its test split, if it has one."""

    names: list  # of the images, for messages
    labels: list  # the class of each, 0 without classes
    classes: list | None  # their names
    read: Callable  # index -> uint8 (H, W, C); raises PictureError or MachineError
    tests: int = 0
    files: list = []  # input files, whose digests go into the record
    about: dict = {}  # further entries of the record


def digits(settings):
    """scikit-learn's 1,797 handwritten digits, 8x8x1."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    names = [f"digit {index}" for index in range(len(pixels))]
    return Found(names, bunch.target.tolist(), [str(k) for k in range(10)], pixels.__getitem__)


def images(settings):
    """Any folder of images, subfolders included, or .zip. Without `classes: folders`, a
    dataset.json at its top gives the classes."""
    path, found = settings["path"], listed(settings)
    channels, resolution = settings.get("channels") or 3, settings.get("resolution")
    resize = setting(settings, "resize")

    def read(index):
        with decode.faults(), found.files.open(found.names[index]) as file:
            return decode.read(file, channels, resolution, resize)

    inputs = [] if os.path.isdir(path) else [path]
    return Found(
        found.names, found.labels, found.classes, read, files=inputs,
        about={"ignored": found.ignored},
    )  # fmt: skip


def imagenet64(settings):
    """ImageNet from a local copy, 64x64: `path` holds a folder `train` with a folder per class."""
    return images(of_imagenet(settings))


def _published(name, inside, channels):
    """A source that torchvision reads from `path`, or downloads to it, and checks."""

    def source(settings):
        """torchvision's images, with its train and test splits."""
        from torchvision import datasets

        dataset, root = getattr(datasets, name), settings["path"]
        try:
            parts = [dataset(root, train=train, download=True) for train in (True, False)]
        except (OSError, RuntimeError, EOFError) as error:
            folder = os.path.join(root, inside)
            raise ValueError(_what_to_put_where(dataset, folder, error)) from None
        items = [(part, index) for part in parts for index in range(len(part))]
        names = [f"{split} {index}" for split, part in zip(("train", "test"), parts)
                 for index in range(len(part))]  # fmt: skip
        labels = [int(label) for part in parts for label in part.targets]
        wanted, resolution = settings.get("channels") or channels, settings.get("resolution")

        def read(index):
            part, row = items[index]
            return decode.pixels_of(part[row][0], wanted, resolution)

        return Found(names, labels, list(parts[0].classes), read, tests=len(parts[1]))

    return source


def _what_to_put_where(dataset, folder, error):
    resources = getattr(dataset, "resources", None) or [(dataset.filename, dataset.tgz_md5)]
    wanted = ", ".join(f"{name} (md5 {md5})" for name, md5 in resources)
    reason = shown(" ".join(str(error).split()))
    return (
        f"no intact {dataset.__name__}, and no download ({reason}); put into"
        f" {shown(folder, LONG)}: {wanted}"
    )


cifar10 = _published("CIFAR10", "", 3)
mnist = _published("MNIST", "MNIST/raw", 1)
fashion_mnist = _published("FashionMNIST", "FashionMNIST/raw", 1)

SOURCES = {
    "digits": digits,
    "images": images,
    "cifar10": cifar10,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "imagenet64": imagenet64,
}


def decoded(found, splits, threads, skipped=None):
    """Yields (split, indices, uint8 (N, H, W, C)) for the images of `splits`, {split: indices}, in
    this order and in chunks.

    For an image that cannot be read, [name, reason] is added to `skipped`. Raises `ValueError` if
    `skipped` is None, or if an image has another size than the first; `MachineError`, whatever
    `skipped` is, if the machine could not read one, so that no dataset depends on free memory.
    """

    def attempt(row):
        try:
            return found.read(row)
        except decode.PictureError as error:
            return error
        except decode.MachineError as error:
            raise decode.MachineError(
                f"'{shown(found.names[row])}' could not be read by this machine: {error}; it may be"
                " intact, so it is not skipped: run again, with fewer --threads if memory is short"
            ) from None

    first, count = None, sum(map(len, splits.values()))
    bar = tqdm(total=count, unit="img", disable=None)  # none without a terminal
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool, bar:
        for split, chunk in _chunks(splits):
            kept, images = [], []
            for row, pixels in zip(chunk, pool.map(attempt, chunk)):
                if isinstance(pixels, decode.PictureError):
                    skip(found.names[row], pixels, skipped)
                    continue
                first = first or (found.names[row], pixels.shape)
                require_size(found.names[row], pixels.shape, *first)
                kept.append(row)
                images.append(pixels)
            if kept:
                yield split, kept, np.stack(images)
            bar.update(len(chunk))


def skip(name, error, skipped):
    """Add what cannot be read, and why, to the list `skipped`; raises `ValueError` without one."""
    if skipped is None:
        raise ValueError(
            f"'{shown(name)}' cannot be read: {shown(error)}; allowed: intact images, or"
            " dataset.on_error: skip"
        )
    skipped.append([name, str(error)])


def _chunks(splits):
    for split, rows in splits.items():
        for start in range(0, len(rows), CHUNK):
            yield split, rows[start : start + CHUNK]


def require_size(name, shape, first, wanted):
    """All images must be squares of the first one's size; with a resolution they are."""
    if shape == wanted and shape[0] == shape[1]:
        return
    (height, width), (first_height, first_width) = shape[:2], wanted[:2]
    other = "" if name == first else f", '{shown(first)}' {first_width}x{first_height}"
    raise ValueError(
        f"'{shown(name)}' has {width}x{height} pixels{other}; allowed: images of one square size,"
        " or dataset.resolution: for a square from the centre of each, resized"
    )
