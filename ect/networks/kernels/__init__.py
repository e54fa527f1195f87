"""The kernels for the CPU as functions of tensors: compiled when they are first needed.

Convolutions of 3x3 by Winograd's F(4x4, 3x3) (Lavin and Gray 2016), 36 products for a tile of 4x4
pixels in place of 144, and norm, SiLU and dropout in one pass. Features are (B, C, H, W), in the
memory format channels_last. `ect/networks/native.py` says which is the backward pass of which.
"""

import ctypes
import functools
import subprocess
import tempfile
import threading
from pathlib import Path

import torch

from ect.networks import dropout

COMMAND = ("cc", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
# Floats in a vector of the kernels, channels in a tile of the split ones, and the most channels.
LANES, PANEL, MOST = 16, 32, 4096
# Tiles that a thread does at a time: if the filters fit into a core's cache of `CACHE` bytes; if
# not; and the number that both are multiples of. For float32 (False) and split (True).
CACHE = 2**21
TILES = {False: (16, 128, 8), True: (32, 128, 32)}
TILES_BACK = (48, 48, 8)


@functools.cache
def library():
    """The kernels, compiled when a process first needs them. Raises `ValueError` where there is no
    compiler for them."""
    sources = sorted(map(str, Path(__file__).parent.glob("*.c")))
    with tempfile.TemporaryDirectory() as folder:
        words = [*COMMAND, *sources, "-o", f"{folder}/native.so", "-lm"]
        try:
            subprocess.run(words, capture_output=True, text=True, check=True)
            loaded = ctypes.CDLL(f"{folder}/native.so")
        except (OSError, subprocess.CalledProcessError) as error:
            why = f"{COMMAND[0]} not found" if isinstance(error, FileNotFoundError) else str(error)
            lines = (getattr(error, "stderr", None) or why).splitlines()
            why = next((line for line in lines if "error" in line), lines[0])
            raise ValueError(f"kernels: native; {' '.join(COMMAND)} failed: {why}") from None
    loaded.keep_memory()
    return loaded


def _call(name, tensors, first, sizes, *numbers):
    """Run a kernel in as many threads as torch has."""
    pointers = [ctypes.c_void_p(None if x is None else x.data_ptr()) for x in tensors]
    sizes = (first, torch.get_num_threads(), *sizes)
    rest = [ctypes.c_long(size) for size in sizes] + [ctypes.c_float(x) for x in numbers]
    getattr(library(), name)(*pointers, *rest)


_kept = threading.local()


def _scratch(name, size):
    """Memory that the next call may overwrite: fresh pages would cost as much as the work."""
    kept = vars(_kept)
    if name not in kept or len(kept[name]) < size:
        kept[name] = torch.empty(size, dtype=torch.float32)
    return kept[name][:size]


def _room(each):
    """`_scratch` with `each` floats for every thread."""
    return _scratch("room", torch.get_num_threads() * each)


def last(x):
    return x.contiguous(memory_format=torch.channels_last)


def _tiles(sizes, filters, count):
    """How many of `count` tiles a thread does at a time, in equal shares."""
    narrow, wide, unit = sizes
    shares = -(-count // (narrow if 4 * len(filters) <= CACHE else wide))
    return -(-count // (shares * unit)) * unit


def _filters(c, o):
    """Memory for the filters of a convolution from c to o channels, or for their gradients."""
    return _scratch("filters", 36 * (c * o + 32))


def filtered(x, weight, bias=None, skip=None, factor=1.0, turned=False, split=False):
    """(x * weight + bias + skip) factor, of x (B, C, H, W) and weight (O, C, 3, 3); with
    `turned`, the adjoint of the convolution with weight (C, O, 3, 3)."""
    (b, c, h, w), o = x.shape, weight.shape[1 if turned else 0]
    prefix, filters = "split_" if split else "", _filters(c, o)
    _call(f"{prefix}filters", (last(weight), filters), c, (o,) if split else (o, turned))
    y = torch.empty((b, o, h, w), dtype=torch.float32, memory_format=torch.channels_last)
    tiles = _tiles(TILES[split], filters, -(-b * h * w // 16 // torch.get_num_threads()))
    each = 18 * (tiles * c + 32) + 36 * (tiles * o + 32) + 72 * tiles  # v, m, pointers to pixels
    sizes = (h, w, c, o, tiles, each)
    _call(f"{prefix}convolve", (x, filters, bias, skip, y, _room(each)), b, sizes, factor)
    return y


def filter_gradients(x, dy):
    """The gradients (O, C, 3, 3) of the weight and (O,) of the bias of `filtered`."""
    (b, c, h, w), o = x.shape, dy.shape[1]
    filters = _filters(c, o)
    weight = torch.empty((o, c, 3, 3), dtype=torch.float32, memory_format=torch.channels_last)
    bias = torch.empty(o, dtype=torch.float32)
    tiles = _tiles(TILES_BACK, filters, b * h * w // 16)
    each = 18 * (tiles * c + 32) + 18 * (tiles * o + 32)
    sizes = (h, w, c, o, tiles, each)
    _call("convolve_back", (x, dy, filters, bias, _room(each)), b, sizes)
    _call("filters_back", (filters, weight), c, (o,))
    return weight, bias


@functools.lru_cache(maxsize=32)
def _places(c, h, w):
    """The hashes of an image's places, in the order of its features in memory."""
    return dropout.places((c, h, w)).permute(1, 2, 0)


def _masked(x, p, keys):
    """What the kernels take of a mask: tensors, and a whole number."""
    return (keys.contiguous(), _places(*x.shape[1:])) if p else (None, None), dropout.least(p)


def activate(x, features, gain, bias, eps, options):
    """dropout(silu(norm(x + features))), and the statistics (B, 2, C) that `activate_back` takes;
    `options` are groups, share of dropout, the keys (B, 2) of its masks, and whether there is a
    SiLU."""
    groups, p, keys, silu = options
    b, c, h, w = x.shape
    features = None if features is None else features.float().contiguous()
    y, stats = torch.empty_like(x), torch.empty(b, 2, c, dtype=torch.float32)
    masks, least = _masked(x, p, keys)
    sizes = (x.dtype == torch.bfloat16, h * w, c, groups, silu, least)
    _call("activate", (x, features, gain, bias, y, stats, *masks), b, sizes, eps, p)
    return y, stats


def activate_back(kept, dy, aside, options, y=None):
    """The gradients of x (plus `aside`), features, gain and bias; `kept` are x, gain, bias and
    stats. If there is a `y`, in bfloat16, the result of the forward pass is written to it."""
    (x, gain, bias, stats), (groups, p, keys, silu) = kept, options
    b, c, h, w = x.shape
    dx, parts = torch.empty_like(x), torch.empty(3, b, c, dtype=torch.float32)
    aside = None if aside is None else last(aside)
    halves = (x.dtype == torch.bfloat16, dy.dtype == torch.bfloat16)
    masks, least = _masked(x, p, keys)
    tensors = (x, gain, bias, stats, dy, aside, dx, *parts, y, _room(h * w * c), *masks)
    _call("activate_back", tensors, b, (*halves, h * w, c, groups, silu, least), p)
    return dx, parts[2], *parts[:2].sum(1)
