"""Dropout whose mask is a function of (seed, layer, row of the image in its batch, place in the
image) and of nothing else, the same on every backend: all of it is arithmetic of whole numbers.

An element is kept where a hash of its place, mixed with two keys of its image, is large enough. So
two evaluations of f under one seed share their masks, whatever computes them and however the batch
is divided among evaluations, microbatches and processes.
"""

from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ect.runtime import device

LOW = 2**32 - 1  # the lower 32 bits
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, splitmix64's step

_used: ContextVar[Any] = ContextVar("used", default=None)  # `Masks` or None


class Masks(NamedTuple):
    """The masks of a batch's step, named by a seed, for the images at `rows` (B,) of that batch, an
    array of whole numbers; without rows for all of it, in order."""

    seed: int = 0
    rows: np.ndarray | None = None

    def of(self, indices):
        """Those of the images at `indices`, a tensor (B,), int64, of these."""
        places = np.asarray(indices.cpu())
        return self._replace(rows=places if self.rows is None else self.rows[places])

    def apart(self):
        """Masks of the same images that have nothing to do with these."""
        return self._replace(seed=self.seed + 1)

    @contextmanager
    def applied(self):
        """In this block networks drop by these masks. Torch's default generator, from which
        networks with torch's own dropout draw theirs on every device, is left re-seeded."""
        torch.manual_seed(self.seed)
        token = _used.set(self)
        try:
            yield
        finally:
            _used.reset(token)

    def keys(self, layers, size):
        """Two odd keys for each layer of a network and each of `size` images: (layers, B, 2),
        int32, by splitmix64 (Steele, Lea and Flood 2014). Raises `ValueError` for another number of
        images than of rows."""
        rows = np.arange(size) if self.rows is None else self.rows
        if len(rows) != size:
            raise ValueError(f"masks: found {size} images; allowed: {len(rows)}, one for each row")
        places = np.arange(1, layers + 1, dtype=np.uint64)
        streams = mixed(mixed(np.array([self.seed], np.uint64)) + places * GOLDEN)
        bits = mixed(streams[:, None] + (rows.astype(np.uint64) + np.uint64(1)) * GOLDEN)
        halves = np.stack([bits & np.uint64(LOW), bits >> np.uint64(32)], axis=-1) | np.uint64(1)
        return torch.from_numpy(halves.astype(np.uint32).view(np.int32))


ALIKE = Masks()  # for those who do not choose


def mixed(bits):
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def places(shape, where=None):
    """A hash of each place in an image of `shape`, e.g. (C, H, W): int32; of a (C, H, W) the
    channels of a pixel are side by side in memory. Products stay below 2^63: an overflow would be
    undefined in C++, which compiled graphs become."""
    index = torch.arange(1, 1 + torch.Size(shape).numel(), device=where).view(shape)
    if len(shape) == 3:
        index = index.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    h = (index * 0x9E3779B1).bitwise_and_(LOW)
    h = (h ^ (h >> 15)).mul_(0x7FEB352D).bitwise_and_(LOW)
    return (h ^ (h >> 16)).to(torch.int32)


def least(p):
    """The smallest hash of an element that is kept, a signed number of 32 bits."""
    return min(round(p * 2**32), 2**32 - 1) - 2**31


def kept(keys, shape, p):
    """Which elements of features (B, ...) of a shape are kept: Boolean, for keys (B, 2)."""
    a, b = keys.view(-1, *[1] * (len(shape) - 1), 2).unbind(-1)
    h = places(shape[1:], keys.device) * a
    h ^= (h >> 16).bitwise_and_(0xFFFF)
    return h.mul_(b) >= least(p)


class Dropout(nn.Module):
    """Dropout of features (B, ...) of share p, in train mode. The network deals its keys."""

    def __init__(self, p):
        super().__init__()
        self.p, self.keys = p, None

    def share(self):
        """The share that is dropped now: 0 in evaluation."""
        return self.p if self.training else 0.0

    def forward(self, x):
        p = self.share()
        return x * kept(self.keys, x.shape, p) / (1 - p) if p else x


def layers(network):
    """The dropout layers of a network, in order."""
    return [module for module in network.modules() if isinstance(module, Dropout)]


def deal(dropouts, x):
    """Give a network's dropout layers their keys for the images x (B, ...): those of the `Masks`
    applied; else of a seed from torch's default generator."""
    if not any(layer.share() for layer in dropouts):
        return
    masks = _used.get() or Masks(int(torch.randint(2**62, ())))
    keys = device.to_device(masks.keys(len(dropouts), len(x)), x.device)
    for layer, each in zip(dropouts, keys):
        layer.keys = each
