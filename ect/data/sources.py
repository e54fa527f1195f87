"""Where images come from: what each `dataset.source` finds, ready to be read one by one.

A source takes the dataset's settings and lists its images. `read` decodes one of them, `decoded`
many in parallel. Loads no torch, except for torchvision's datasets.
"""

import os
import tempfile
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ect.config.dataset import MAX_BYTES
from ect.data import decode, parquet, webdataset
from ect.data.classes import listed, of_imagenet
from ect.runtime.checkpoint import no_folder_left
from ect.runtime.text import shown
from ect.runtime.versions import setting

LONG = 5000  # characters: longer than any path
# What torchvision raises of files that are not such as it was told; it asserts what it read.
UNREADABLE = (OSError, RuntimeError, EOFError, AssertionError, TypeError, ValueError)
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
    # Of files that are read only from their beginning on: sorted indices -> for each of them, in
    # order, what `read` takes in the place of an index.
    contents: Callable | None = None


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
    return _of(found._replace(inputs=[] if os.path.isdir(path) else [path]), settings)


def webdataset_shards(settings):
    """The images of .tar files, `key.jpg` beside `key.cls` or `key.json`."""
    return _of(webdataset.listed(settings), settings)


def parquet_files(settings):
    """The images in rows of Parquet files, as HF `datasets` writes them."""
    found = parquet.listed(settings)
    return _of(found, settings, parquet.opened)._replace(contents=found.files.contents)


def _of(found, settings, opened=None):
    """The `Found` of a `Listing`, whose images `opened` opens, by default by their names."""
    channels, resolution = settings.get("channels") or 3, settings.get("resolution")
    resize = setting(settings, "resize")
    opened = opened or (lambda index: found.files.open(found.names[index]))

    def read(key):
        with decode.faults(), opened(key) as file:
            return decode.read(file, channels, resolution, resize)

    return Found(
        found.names, found.labels, found.classes, read, tests=found.tests, files=found.inputs,
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
            with no_folder_left(os.path.join(root, inside)):
                parts = [dataset(root, train=train, download=True) for train in (True, False)]
        except UNREADABLE as error:
            folder = os.path.join(root, inside)
            raise ValueError(_what_to_put_where(dataset, folder, error)) from None
        for split, part in zip(("train", "test"), parts):
            _require_labels(part, split, os.path.join(root, inside))
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


def _require_labels(part, split, folder):
    """Raise `ValueError` unless each image of a split has a label that is one of the classes."""
    labels, count = [int(label) for label in part.targets], len(part.classes)
    if len(labels) != len(part.data):
        found = f"found {len(part.data)} images and {len(labels)} labels"
        allowed = "a label for each"
    elif beyond := sorted({label for label in labels if not 0 <= label < count}):
        found, allowed = f"found the label {beyond[-1]}", f"0 to {count - 1}"
    else:
        return
    raise ValueError(f"{shown(folder, LONG)}: {found} in the split {split}; allowed: {allowed}")


def _what_to_put_where(dataset, folder, error):
    resources = getattr(dataset, "resources", None) or [(dataset.filename, dataset.tgz_md5)]
    wanted = ", ".join(f"{name} (md5 {md5})" for name, md5 in resources)
    reason = shown(" ".join(str(error).split()) or type(error).__name__)
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
    "parquet": parquet_files,
    "webdataset": webdataset_shards,
    "cifar10": cifar10,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "imagenet64": imagenet64,
}


def decoded(found, splits, threads, skipped=None, folder=None):
    """Yields (split, indices, uint8 (N, H, W, C)) for the images of `splits`, {split: indices}, in
    this order and in chunks. Those of a source with `contents` are read in the order of its files
    first, into a file without a name in `folder`.

    For an image that cannot be read, [name, reason] is added to `skipped`. Raises `ValueError` if
    `skipped` is None, or if an image has another size than the first; `MachineError`, whatever
    `skipped` is, if the machine could not read one, so that no dataset depends on free memory.
    """
    count = sum(map(len, splits.values()))
    bar = tqdm(total=count, unit="img", disable=None)  # none without a terminal
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool, bar:
        reader = Reader(found, pool, skipped, bar)
        if found.contents is not None:
            yield from _shuffled(reader, splits, folder)
            return
        for split, chunk in _chunks(splits):
            kept = list(reader.pixels(chunk, chunk))
            if kept:
                yield split, [row for row, _ in kept], np.stack([pixels for _, pixels in kept])


class Reader:
    """Reads images by several threads, checks their sizes and lists those that cannot be read."""

    def __init__(self, found, pool, skipped, bar):
        self.found, self.pool, self.skipped, self.bar = found, pool, skipped, bar
        self.first = None  # (name, shape) of the first image

    def pixels(self, rows, keys):
        """Yields (row, pixels) of the rows that can be read, in order; `keys` are what `found.read`
        takes for them. So many keys are in memory as a chunk has, or hold `MAX_BYTES`."""
        waiting, held = deque(), 0
        for row, key in zip(rows, keys, strict=True):
            size = len(key) if isinstance(key, bytes) else 0
            waiting.append((row, size, self.pool.submit(self._attempt, row, key)))
            held += size
            while len(waiting) > CHUNK or held > MAX_BYTES:
                held -= waiting[0][1]
                yield from self._checked(*waiting.popleft())
        while waiting:
            yield from self._checked(*waiting.popleft())

    def _attempt(self, row, key):
        try:
            return self.found.read(key)
        except decode.PictureError as error:
            return error
        except decode.MachineError as error:
            raise decode.MachineError(
                f"'{shown(self.found.names[row])}' could not be read by this machine: {error}; it"
                " may be intact, so it is not skipped: run again, with fewer --threads if memory is"
                " short"
            ) from None

    def _checked(self, row, size, future):
        pixels, name = future.result(), self.found.names[row]
        self.bar.update()
        if isinstance(pixels, decode.PictureError):
            skip(name, pixels, self.skipped)
            return
        self.first = self.first or (name, pixels.shape)
        require_size(name, pixels.shape, *self.first)
        yield row, pixels


def _shuffled(reader, splits, folder):
    """As `decoded`, by way of a file in which the pixels lie in the order of the source."""
    rows = sorted(int(row) for chosen in splits.values() for row in chosen)
    with tempfile.TemporaryFile(dir=folder) as file:
        places, size, shape = {}, 0, ()
        for row, pixels in reader.pixels(rows, reader.found.contents(rows)):
            file.write(pixels.tobytes())
            places[row], size, shape = len(places), pixels.nbytes, pixels.shape
        file.flush()
        for split, chunk in _chunks(splits):
            kept = [row for row in chunk if row in places]
            parts = (os.pread(file.fileno(), size, size * places[row]) for row in kept)
            if kept:
                yield split, kept, np.frombuffer(b"".join(parts), np.uint8).reshape(-1, *shape)


def skip(name, error, skipped):
    """Add what cannot be read, and why, to the list `skipped`; raises `ValueError` without one."""
    if skipped is None:
        allowed = "" if "; allowed: " in str(error) else "allowed: intact images, "
        raise ValueError(
            f"'{shown(name)}' cannot be read: {shown(error)}; {allowed}or dataset.on_error: skip"
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
