"""Dropout, whose mask is a function of torch's default generator and of an image's place in its
batch: two evaluations of f from one seed share it, also where one is of a part of the batch. Native
kernels have masks of their own, and take from here whose they are."""

from contextlib import contextmanager
from contextvars import ContextVar

import torch

_part = ContextVar("part", default=(None, None))


@contextmanager
def part_of(size, rows):
    """What networks are given in this block are images of a batch of `size`, those at `rows` (B,),
    int64, and have the masks that dropout gives them there. Raises `RuntimeError` where gradients
    are asked for, whose masks in native kernels would be others."""
    if torch.is_grad_enabled():
        raise RuntimeError("part_of: found gradients enabled; allowed: under torch.no_grad()")
    token = _part.set((size, rows))
    try:
        yield
    finally:
        _part.reset(token)


def rows():
    """The places of the images in their batch; None where they are all of it."""
    return _part.get()[1]


def dropout(x, p):
    """Dropout of features (B, C, H, W). The mask of torch's own depends on the layout of x too, and
    on whether x is being differentiated."""
    if p == 0:
        return x
    size, places = _part.get()
    shape, like = (size or len(x), *x.shape[1:]), {"dtype": x.dtype, "device": x.device}
    mask = torch.empty(shape, **like, memory_format=torch.channels_last).bernoulli_(1 - p)
    return x * (mask if places is None else mask[places]).div_(1 - p)
