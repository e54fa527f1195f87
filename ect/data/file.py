"""The prepared dataset file: a safetensors file, written in a stream and read image by image.

It holds `train` and, where images were held out, `test`, uint8 (N, H, W, C), `train_labels` and
`test_labels`, int64 (N,), and in its metadata the mapping `about`. Writing and reading keep only
the images of the current call in memory.
"""

import hashlib
import json
import math
import os
from array import array
from contextlib import contextmanager

import numpy as np
from safetensors import SafetensorError, safe_open

from ect.registry import RESIZES
from ect.runtime import checkpoint
from ect.runtime.checkpoint import CheckpointError, replacing, typed
from ect.runtime.text import allowing, cause, parsed, shown, shown_path

SPLITS = ("train", "test")
PARTS = (*SPLITS, *(f"{split}_labels" for split in SPLITS))
# Of the map from pixels to the network's range, and of the pixels' standard deviation there.
RANGES = {"shift": (0, 255), "scale": (1e-6, 1e6), "sd": (1e-6, 1e6)}
ROOM = 4096  # bytes of header beyond the metadata known at the start; padded with spaces


class Pixels:
    """The images of a split, uint8 (N, H, W, C), read from the file as they are indexed: by a
    number, a slice or a list of numbers.

    The file is read, not memory-mapped: mapping loads large pieces around each byte, so a random
    batch would load most of a small file and take ten times as long.
    """

    def __init__(self, path, start, shape):
        self.file = open(path, "rb")  # noqa: SIM115 - one file for as long as the split is in use
        self.start, self.shape = start, shape

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        if isinstance(rows, (int, np.integer)):
            return self[[rows]][0]
        every, size = range(len(self)), math.prod(self.shape[1:])
        chosen = every[rows] if isinstance(rows, slice) else [every[row] for row in rows]
        handle = self.file.fileno()
        parts = (os.pread(handle, size, self.start + size * row) for row in chosen)
        return np.frombuffer(bytearray().join(parts), np.uint8).reshape(-1, *self.shape[1:])


def read(path, split):
    """(pixels, labels, about) of a split. The whole file is checked, but for its pixels' values;
    raises `CheckpointError`, also where no images were held out and they are asked for."""
    checkpoint.require_no_pipe(path)
    try:
        with safe_open(path, framework="np") as file:  # checks the header and the file's length
            about = parsed((file.metadata() or {})["about"])
            kinds = {key: _kind(file.get_slice(key)) for key in file.keys()}  # noqa: SIM118
            splits = _require_parts(kinds)
            labels = {each: file.get_tensor(f"{each}_labels") for each in splits}
        _require_meaning(about)
        for each in splits:
            _require_labels(f"{each}_labels", labels[each], about["classes"])
        if split not in splits:
            raise ValueError("no held-out images; allowed: one of dataset.held_out above 0")
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entry = json.loads(file.read(length))[split]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        lost = f"no {error}" if isinstance(error, KeyError) else cause(error, path)
        said = allowing(f"not a readable dataset ({lost})", "the file that `prepare` writes")
        raise CheckpointError(f"{shown_path(path)}: {said}") from None
    start = 8 + length + entry["data_offsets"][0]
    return Pixels(path, start, tuple(entry["shape"])), labels[split], about


def holds(path, split):
    """Whether a dataset file, which can be read, has images of a split."""
    with safe_open(path, framework="np") as file:
        return split in file.keys()  # noqa: SIM118


def _kind(part):
    """(dtype, shape) of a part of a safetensors file."""
    return part.get_dtype(), tuple(part.get_shape())


def _require_parts(kinds):
    """The splits that are there; raises `ValueError` unless all hold images of one shape, with a
    label for each."""
    from ect.config.dataset import MAX_PIXELS  # a model that was given away has no pydantic

    splits = [s for s in SPLITS if s == "train" or {s, f"{s}_labels"} & kinds.keys()]
    for split in splits:
        for name, wanted, sides in ((split, "U8", 4), (f"{split}_labels", "I64", 1)):
            if name not in kinds:
                raise ValueError(f"no '{name}'; allowed: {', '.join(map(repr, PARTS))}")
            dtype, shape = kinds[name]
            if dtype != wanted or len(shape) != sides or 0 in shape:
                allowed = "(N, H, W, C) of U8" if sides == 4 else "(N,) of I64"
                raise ValueError(
                    f"{name} is {shape} of {dtype}; allowed: {allowed}, none of them 0"
                )
        height, width, channels = kinds[split][1][1:]
        if channels not in (1, 3) or height * width > MAX_PIXELS:
            allowed = f"of 1 or 3 channels, up to {MAX_PIXELS:,} pixels"
            raise ValueError(
                f"{split} has images of {width}x{height}x{channels}; allowed: {allowed}"
            )
        images, labels = kinds[split][1][0], kinds[f"{split}_labels"][1][0]
        if images != labels:
            raise ValueError(f"{split} has {images} images and {labels} labels; allowed: as many")
    one, other = (kinds[split][1][1:] for split in (splits[0], splits[-1]))
    if one != other:
        raise ValueError(f"train has images of {one}, test of {other}; allowed: of one shape")
    return splits


def _require_meaning(about):
    """Raise `ValueError` unless what the file says of its images is what `prepare` writes."""
    typed(about, "about", {"classes": (list, type(None))} | dict.fromkeys(RANGES, (int, float)))
    for key, (low, high) in RANGES.items():
        if not low <= about[key] <= high:  # also for nan
            raise ValueError(f"{key} is {about[key]}; allowed: {low:g} to {high:g}")
    if about.get("resize", RESIZES[0]) not in RESIZES:
        found = shown(json.dumps(about["resize"]), 60)
        raise ValueError(f"resize is {found}; allowed: {', '.join(RESIZES)}, or no such key")
    classes = about["classes"]
    if classes is None:
        return
    if not classes or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"classes is {shown(classes, 60)}; allowed: a list of names, or null")
    if len(set(classes)) < len(classes):
        raise ValueError(f"classes is {shown(classes, 60)}; allowed: each name once")


def _require_labels(name, labels, classes):
    """Raise `ValueError` unless labels (N,) are numbers of classes, all 0 without them."""
    count = len(classes or [None])
    odd = labels[(labels < 0) | (labels >= count)]
    if len(odd):
        allowed = f"0 to {count - 1}, its classes" if classes else "0, as without classes"
        raise ValueError(f"{name} holds {odd[0]}; allowed: {allowed}")


class Writer:
    """Writes the images of one split after another; counts each split's pixel values and adds up
    them and their squares, as integers."""

    def __init__(self, file):
        self.file, self.labels, self.sums, self.shape = file, {}, {}, None
        self.brightest = 0  # of all pixels
        self.prints = {split: array("Q") for split in SPLITS}  # 64 bits of each image's hash

    def add(self, split, pixels, labels):
        """Append uint8 images (N, H, W, C) and their labels to a split, one split after another."""
        self.shape = pixels.shape[1:]
        self.file.write(np.ascontiguousarray(pixels))
        self.labels.setdefault(split, []).extend(map(int, labels))
        self.brightest = max(self.brightest, int(pixels.max()))
        self.prints[split].extend(map(_print, pixels))
        squares = np.square(pixels, dtype=np.uint16)  # 255^2 < 2^16
        more = (pixels.size, *(int(x.sum(dtype=np.uint64)) for x in (pixels, squares)))
        self.sums[split] = [a + b for a, b in zip(self.sums.get(split, (0, 0, 0)), more)]

    def moments(self, split):
        """(mean, standard deviation) of a split's pixel values, exact until the last division."""
        count, total, squares = self.sums[split]
        return total / count, math.sqrt(count * squares - total**2) / count

    def in_both(self):
        """The numbers of the test images that are among the training images too."""
        train, test = (np.asarray(self.prints[split]) for split in SPLITS)
        return np.flatnonzero(np.isin(test, train))


def _print(image):
    pixels = np.ascontiguousarray(image).data
    return int.from_bytes(hashlib.blake2b(pixels, digest_size=8).digest(), "little")


@contextmanager
def writing(path, about):
    """Yield a `Writer`. The caller may add a few numbers to `about`, a JSON mapping, until the end.
    The file appears at `path` only if no error occurred."""
    with replacing(path) as scratch, open(scratch, "wb") as file:
        room = ROOM + 2 * len(json.dumps(about))
        file.seek(8 + room)
        writer = Writer(file)
        yield writer
        for labels in writer.labels.values():
            file.write(np.array(labels, np.int64).tobytes())
        header = json.dumps(_entries(writer) | {"__metadata__": {"about": json.dumps(about)}})
        file.seek(0)
        file.write(room.to_bytes(8, "little") + header.encode().ljust(room))


def _entries(writer):
    """The header's entries, in the order of the file: all pixels, then all labels."""
    entries, end = {}, 0
    counts = {split: len(labels) for split, labels in writer.labels.items()}
    parts = {split: ("U8", [n, *writer.shape], n * math.prod(writer.shape))
             for split, n in counts.items()}  # fmt: skip
    parts |= {f"{split}_labels": ("I64", [n], 8 * n) for split, n in counts.items()}
    for name, (kind, shape, size) in parts.items():
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return entries
