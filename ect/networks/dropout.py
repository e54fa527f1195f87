"""Dropout whose mask depends only on torch's default generator and on the image's row in its batch:
two evaluations of f from one seed share it, even if one is of a part of the batch. The native
kernels draw their own masks and ask `rows()` which rows they hold."""

from contextlib import contextmanager
from contextvars import ContextVar

import torch

_part = ContextVar("part", default=(None, None))


@contextmanager
def part_of(size, rows):
    """In this block the inputs of networks are the images at `rows` (B,), int64, of a batch of
    `size`, and get the dropout masks that they have in that batch. Raises `RuntimeError` if
    gradients are enabled: the native kernels' backward pass would use other masks."""
    if torch.is_grad_enabled():
        raise RuntimeError("part_of: found gradients enabled; allowed: under torch.no_grad()")
    token = _part.set((size, rows))
    try:
        yield
    finally:
        _part.reset(token)


def rows():
    """The rows of the inputs in their batch; None if they are the whole batch."""
    return _part.get()[1]


def dropout(x, p):
    """Dropout of features (B, C, H, W). The mask of torch's own dropout also depends on the layout
    of x, and on whether x requires a gradient."""
    if p == 0:
        return x
    size, indices = _part.get()
    shape, like = (size or len(x), *x.shape[1:]), {"dtype": x.dtype, "device": x.device}
    mask = torch.empty(shape, **like, memory_format=torch.channels_last).bernoulli_(1 - p)
    return x * (mask if indices is None else mask[indices]).div_(1 - p)
