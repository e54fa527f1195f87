"""Datasets as one prepared file, and batches that depend on (seed, images seen) alone."""

import functools
import hashlib
from pathlib import Path

import numpy as np
import torch

from ect.checkpoint import replacing


def seed_of(*parts):
    """A 63-bit seed for a stream of random numbers, named by its parts: (seed, what, where)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_of(*parts):
    """A CPU generator for the stream named by its parts."""
    return torch.Generator().manual_seed(seed_of(*parts))


def digits():
    """scikit-learn's 1,797 handwritten digits: uint8 images (N, 8, 8, 1), labels (N,)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return pixels[..., None], bunch.target.astype(np.int64)


SOURCES = {"digits": digits}


def prepare(settings, path):
    """Write a dataset file (npz): uint8 images (N, H, W, C) and labels (N,) for `train` and `test`,
    and the `shift` and `scale` that map pixels to the network's range.

    The held-out images are a random choice, fixed by `split_seed`.
    """
    images, labels = SOURCES[settings["source"]]()
    if settings["held_out"] >= len(images):
        raise ValueError(f"dataset.held_out is {settings['held_out']}; allowed: < {len(images)}")
    order = np.random.default_rng(settings["split_seed"]).permutation(len(images))
    test, train = np.split(order, [settings["held_out"]])
    shift, scale = 127.5, 1 / 127.5
    if settings["normalize"] == "standard":
        shift, scale = images[train].mean(), 0.5 / images[train].std()
    pixels = (images[train] - shift) * scale
    arrays = {
        "train": images[train], "train_labels": labels[train],
        "test": images[test], "test_labels": labels[test],
        "shift": np.float64(shift), "scale": np.float64(scale), "sd": np.float64(pixels.std()),
    }  # fmt: skip
    save_arrays(path, **arrays)


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


def save_arrays(path, *unnamed, **named):
    """Write an npz file, atomically."""
    with replacing(path) as scratch, open(scratch, "wb") as file:
        np.savez(file, *unnamed, **named)


class Images:
    """The images of a dataset file, and the map between pixels and the network's range."""

    def __init__(self, path, split="train"):
        with np.load(Path(path), allow_pickle=False) as file:
            self.pixels, self.labels = file[split], file[f"{split}_labels"]
            self.shift, self.scale = float(file["shift"]), float(file["scale"])
            self.sd = float(file["sd"])

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
