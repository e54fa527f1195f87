"""Batches that depend on (seed, images seen) alone."""

import functools

import numpy as np
import torch

from ect.data import file
from ect.runtime.seeds import seed_of
from ect.runtime.versions import setting


def encode(pixels, about):
    """uint8 (N, H, W, C) -> float32 (N, C, H, W): (pixels - shift) * scale."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32)
    return (x - about["shift"]) * about["scale"]


def decode(x, about, precision="fp32"):
    """The inverse of `encode`, rounded and clipped to uint8. Raises `FloatingPointError` where an
    image is not finite, which uint8 would make black; `precision` is that of x, for the message."""
    pixels = x.to(torch.float32) / about["scale"] + about["shift"]
    bad = int((~pixels.isfinite()).flatten(1).any(1).sum())
    if bad:
        advice = "; fp16 overflows above 65504: evaluation.precision bf16, tf32 or fp32"
        raise FloatingPointError(
            f"{bad} of {len(pixels)} images hold NaN or infinity, computed in {precision}; allowed:"
            f" finite images{advice if precision == 'fp16' else ''}"
        )
    pixels = pixels.round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


@functools.lru_cache(maxsize=2)
def shuffled(seed, epoch, n):
    """The numbers 0 to n - 1 in the order of an epoch."""
    return np.random.default_rng(seed_of(seed, "epoch", epoch)).permutation(n)


class Images:
    """The images of a dataset file, and the map between pixels and the network's range. `pixels`
    (N, H, W, C) stay in the file until they are indexed; `classes` are names, or None; `resize` is
    how they were resized, if they were."""

    def __init__(self, path, split="train"):
        self.pixels, self.labels, about = file.read(path, split)
        self.shift, self.scale, self.sd = (about[key] for key in ("shift", "scale", "sd"))
        self.classes, self.resize = about["classes"], setting(about, "resize")

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
        return [shuffled(seed, i // n, n)[i % n] for i in range(seen, seen + size)]

    def encode(self, pixels):
        """uint8 (N, H, W, C) -> float32 (N, C, H, W) in the network's range."""
        return encode(pixels, {"shift": self.shift, "scale": self.scale})

    def decode(self, x):
        """The inverse of `encode`, as `decode`."""
        return decode(x, {"shift": self.shift, "scale": self.scale})
