"""A source as one prepared file, and batches that depend on (seed, images seen) alone."""

import functools
import hashlib
import time
from pathlib import Path

import numpy as np
import torch

from ect import checkpoint, machine, prepared
from ect.sources import SOURCES, decoded


def seed_of(*parts):
    """A 63-bit seed for a stream of random numbers, named by its parts: (seed, what, where)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_of(*parts):
    """A CPU generator for the stream named by its parts."""
    return torch.Generator().manual_seed(seed_of(*parts))


def prepare(settings, path, threads=None):
    """Write a dataset file (see `ect/prepared.py`) of the splits `train` and `test`, with the names
    of the classes and the `shift` and `scale` that map pixels to the network's range; beside it
    run.json, which is returned, and where images were skipped skipped.txt.

    `held_out` and `max_images` are random choices, fixed by `split_seed`. Nothing but the time
    depends on `threads`, by default one for each processor.
    """
    started, path = time.monotonic(), Path(path)
    found = SOURCES[settings["source"]](settings)
    skipped = [] if settings.get("on_error") == "skip" else None
    about = {"classes": found.classes}
    with prepared.writing(path, about) as writer:
        for split, kept, pixels in decoded(found, _splits(settings, found), threads, skipped):
            writer.add(split, pixels, [found.labels[row] for row in kept])
        about |= _range(settings, writer)
    counts = {split: len(labels) for split, labels in writer.labels.items()}
    record = machine.record(
        settings, found.files, started, [path], images=counts, shape=writer.shape,
        classes=found.classes, skipped=skipped or [], **found.about,
    )  # fmt: skip
    checkpoint.write_json(path.with_name("run.json"), record)
    _list_skipped(path.with_name("skipped.txt"), skipped)
    return record


def _splits(settings, found):
    """{split: the indices of its images, in random order}."""
    random, held_out = np.random.default_rng(settings["split_seed"]), settings.get("held_out")
    count = len(found.names) - found.tests
    order = random.permutation(count)[: settings.get("max_images")]
    if found.tests:
        if (held_out or 0) > found.tests:
            raise ValueError(f"dataset.held_out is {held_out}; allowed: <= {found.tests}")
        return {"train": order, "test": count + random.permutation(found.tests)[:held_out]}
    if held_out >= len(order):
        raise ValueError(f"dataset.held_out is {held_out}; allowed: < {len(order)}")
    test, train = np.split(order, [held_out])
    return {"train": train, "test": test}


def _range(settings, writer):
    """What maps pixels to the network's range, and the deviation `sd` that they have there."""
    for split in ("train", "test"):
        if split not in writer.sums:
            raise ValueError(f"none of the images to {split} with could be read")
    mean, deviation = writer.moments("train")
    if deviation == 0:
        raise ValueError("all pixels of the images have one value")
    if settings["normalize"] == "standard":
        return {"shift": mean, "scale": 0.5 / deviation, "sd": 0.5}
    return {"shift": 127.5, "scale": 1 / 127.5, "sd": deviation / 127.5}


def _list_skipped(path, skipped):
    """Names and reasons, a line each; no file where nothing was skipped."""
    path.unlink(missing_ok=True)
    if skipped:
        text = "".join(f"{name}: {reason}\n" for name, reason in skipped)
        path.write_text(text, encoding="utf-8", errors="surrogateescape")


def encode(pixels, about):
    """uint8 (N, H, W, C) -> float32 (N, C, H, W): (pixels - shift) * scale."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32)
    return (x - about["shift"]) * about["scale"]


def decode(x, about):
    """The inverse of `encode`, rounded and clipped to uint8."""
    pixels = (x.to(torch.float32) / about["scale"] + about["shift"]).round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


@functools.lru_cache(maxsize=2)
def _order(seed, epoch, n):
    return np.random.default_rng(seed_of(seed, "epoch", epoch)).permutation(n)


class Images:
    """The images of a dataset file, and the map between pixels and the network's range. `pixels`
    (N, H, W, C) stay in the file until they are indexed; `classes` are names, or None."""

    def __init__(self, path, split="train"):
        self.pixels, self.labels, about = prepared.read(path, split)
        self.shift, self.scale, self.sd = (about[key] for key in ("shift", "scale", "sd"))
        self.classes = about["classes"]

    @property
    def shape(self):
        """(C, H, W)."""
        height, width, channels = self.pixels.shape[1:]
        return channels, height, width

    def batch(self, seed, seen, size):
        """Images `seen`, `seen` + 1, ... of an endless sequence of shuffled epochs: (size, C, H, W)
        in the network's range."""
        return self.encode(self.pixels[self._rows(seed, seen, size)])

    def batch_labels(self, seed, seen, size):
        """The class labels (size,) of the images of `batch`."""
        return torch.from_numpy(self.labels[self._rows(seed, seen, size)])

    def _rows(self, seed, seen, size):
        n = len(self.pixels)
        return [_order(seed, i // n, n)[i % n] for i in range(seen, seen + size)]

    def encode(self, pixels):
        """uint8 (N, H, W, C) -> float32 (N, C, H, W) in the network's range."""
        return encode(pixels, {"shift": self.shift, "scale": self.scale})

    def decode(self, x):
        """The inverse of `encode`, rounded and clipped to uint8."""
        return decode(x, {"shift": self.shift, "scale": self.scale})
