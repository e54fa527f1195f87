"""The U-Net's blocks in kernels of their own for the CPU.

Convolutions of 3x3 by Winograd's F(4x4, 3x3) (Lavin and Gray 2016): 36 products for a tile of 4x4
pixels in place of 144. Norm, SiLU and dropout in one pass, forward and backward, with a mask that
is a function of (seed, place). The mathematics of `ect/network.py` in float32, but not its rounding
nor its masks. `native.c` is compiled when a process first needs it.
"""

import ctypes
import functools
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from ect.network import Block, UNet

COMMAND = ("cc", "-O3", "-march=native", "-shared", "-fPIC")
LANES, MOST = 16, 4096  # floats of a vector of native.c, and channels that it takes
NEAR = 10 * 2**20  # bytes: of 1 to 38 MB near the best for three shapes, with 2 MiB for each core

# G of F(4, 3) for both directions: a filter (9,) -> its 36 numbers in the transformed domain.
_ROWS = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
_LINE = torch.tensor(_ROWS) / 24
FILTER = torch.kron(_LINE, _LINE)


@functools.cache
def _library():
    """native.c as a library. Raises `ValueError` where there is no compiler for it."""
    source = Path(__file__).with_name("native.c")
    with tempfile.TemporaryDirectory() as folder:
        words = [*COMMAND, str(source), "-o", f"{folder}/native.so", "-lm"]
        try:
            subprocess.run(words, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            lines = (getattr(error, "stderr", None) or f"{COMMAND[0]} not found").splitlines()
            why = next((line for line in lines if "error" in line), lines[0])
            raise ValueError(f"kernels: native; {' '.join(COMMAND)} failed: {why}") from None
        return ctypes.CDLL(words[-2])


@functools.cache
def _pool(threads):
    return ThreadPoolExecutor(threads)


def _call(name, tensors, images, sizes, *numbers):
    """Run a kernel on a batch, cut in as many parts as torch has threads."""
    pointers = [ctypes.c_void_p(None if x is None else x.data_ptr()) for x in tensors]
    rest = [ctypes.c_long(size) for size in sizes] + [ctypes.c_float(x) for x in numbers]

    def part(first, last):
        ends = (ctypes.c_long(end) for end in (images, first, last))
        getattr(_library(), name)(*pointers, *ends, *rest)

    threads = min(torch.get_num_threads(), images)
    if threads == 1:
        return part(0, images)
    cuts = [images * n // threads for n in range(threads + 1)]
    return list(_pool(threads).map(part, cuts[:-1], cuts[1:]))


_kept = {}


def _scratch(name, *shape):
    """Memory that the next call may overwrite: fresh pages would cost as much as the work."""
    size = torch.Size(shape).numel()
    if name not in _kept or len(_kept[name]) < size:
        _kept[name] = torch.empty(size)
    return _kept[name][:size].view(shape)


def _last(x):
    return x.contiguous(memory_format=torch.channels_last)


def _transformed(kernel, x, name):
    """Tiles of x (B, C, H, W) in the transformed domain (36, tiles, C)."""
    b, c, h, w = x.shape
    tiles = _scratch(name, 36, b * h * w // 16, c)
    _call(kernel, (x, tiles), b, (h, w, c))
    return tiles


def _parts(x, outputs):
    """A batch in parts whose tiles stay near the processor."""
    bytes_each = 36 * 4 * x[0, 0].numel() // 16 * (x.shape[1] + outputs)
    count = max(1, NEAR // bytes_each)
    return [slice(first, first + count) for first in range(0, len(x), count)]


def _filtered(x, weight, bias=None, skip=None, factor=1.0):
    """(x * weight + bias + skip) factor, of x (B, C, H, W) and weight (3, 3, C, O)."""
    (b, c, h, w), o = x.shape, weight.shape[3]
    filters = (FILTER @ weight.reshape(9, c * o)).view(36, c, o)
    y = torch.empty((b, o, h, w), memory_format=torch.channels_last)
    for part in _parts(x, o):
        tiles = _transformed("gather", x[part], "in")
        products = torch.bmm(tiles, filters, out=_scratch("out", 36, tiles.shape[1], o))
        near = None if skip is None else skip[part]
        _call("scatter", (products, bias, near, y[part]), len(x[part]), (h, w, o), factor)
    return y


def _weight_gradient(x, dy):
    """The gradient (3, 3, C, O) of the weight of `_filtered`."""
    c, o = x.shape[1], dy.shape[1]
    both = torch.zeros(36, c, o)
    for part in _parts(x, o):
        tiles = _transformed("gather", x[part], "in")
        both.baddbmm_(tiles.mT, _transformed("spread", dy[part], "out"))
    return (FILTER.T @ both.view(36, c * o)).view(3, 3, c, o)


class Convolution(torch.autograd.Function):
    """`(conv2d(x, weight, bias, padding=1) + skip) * factor` of x (B, C, H, W), weight (O, C, 3, 3)
    and skip (B, O, H, W), or None for neither; float32, H and W multiples of 4, C and O of 16."""

    @staticmethod
    def forward(ctx, x, weight, bias, skip=None, factor=1.0):
        x, skip = _last(x), None if skip is None else _last(skip)
        ctx.save_for_backward(x, weight)
        ctx.skipped, ctx.factor = skip is not None, factor
        return _filtered(x, weight.permute(2, 3, 1, 0), bias, skip, factor)

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        dy = _last(dy) * ctx.factor if ctx.skipped else _last(dy)
        dx = _filtered(dy, weight.flip(2, 3).permute(2, 3, 0, 1))
        rows = dy.permute(0, 2, 3, 1).flatten(0, 2)
        d_weight = _weight_gradient(x, dy).permute(3, 2, 0, 1)
        return dx, d_weight, torch.ones(len(rows)) @ rows, dy if ctx.skipped else None, None


class Activation(torch.autograd.Function):
    """dropout(silu(norm(x + features))) of x (B, C, H, W) and features (B, C) or None, with groups'
    gain and bias (C,); dropout of share p by the mask of an integer `seed`."""

    @staticmethod
    def forward(ctx, x, features, gain, bias, groups, eps, p, seed):
        x = _last(x)
        b, c, h, w = x.shape
        y, stats = torch.empty_like(x), torch.empty(b, 2, c)
        ctx.options = (b, (h * w, c, groups, seed), eps, p)
        _call("activate", (x, features, gain, bias, y, stats), *ctx.options)
        ctx.save_for_backward(x, features, gain, bias, stats)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, features, gain, bias, stats = ctx.saved_tensors
        dx, parts = torch.empty_like(x), torch.empty(3, *stats[:, 0].shape)
        given = (x, features, gain, bias, stats, _last(dy), dx, *parts)
        _call("activate_back", given, *ctx.options)
        told = None if features is None else parts[2]
        return dx, told, *parts[:2].sum(1), None, None, None, None


def activated(norm, x, features=None, p=0.0, seed=0):
    gain, bias = norm.weight, norm.bias
    return Activation.apply(x, features, gain, bias, norm.num_groups, norm.eps, p, seed)


def convolved(conv, x, skip=None, factor=1.0):
    if x.shape[2] % 4 == 0 and x.shape[3] % 4 == 0:
        return Convolution.apply(x, conv.weight, conv.bias, skip, factor)
    return conv(x) if skip is None else (conv(x) + skip) * factor


def pointwise(conv, x):
    """A convolution of 1x1 as the product of matrices that it is."""
    y = functional.linear(_last(x).permute(0, 2, 3, 1), conv.weight[:, :, 0, 0], conv.bias)
    return y.permute(0, 3, 1, 2)


def forward(block, x, embedding):
    """`Block.forward` in these kernels; the seed of its mask is torch's default generator's."""
    p = block.dropout if block.training else 0.0
    seed = int(torch.randint(2**31, ())) if p else 0
    h = convolved(block.conv0, block.sized(activated(block.norm0, x)))
    h = activated(block.norm1, h, block.affine(embedding), p, seed)
    skip = block.skip(block.sized(x))
    return block.attention(convolved(block.conv1, h, skip, block.style.skip_scale))


def use(network):
    """Let a network's blocks compute in these kernels. Raises `ValueError` for one that cannot."""
    if not isinstance(network, UNet) or network.stem.weight.device.type != "cpu":
        raise ValueError("kernels: native; allowed: on a CPU, for the U-Nets of this package")
    _library()
    for conv in network.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (1, 1):
            conv.forward = functools.partial(pointwise, conv)  # type: ignore[method-assign]
    for block in network.modules():
        if isinstance(block, Block):
            widths = (block.norm0.num_channels, block.norm1.num_channels)
            if block.style.adm or any(width % LANES or width > MOST for width in widths):
                raise ValueError("kernels: native; allowed: ddpmpp, ncsnpp; widths in 16s")
            block.forward = functools.partial(forward, block)  # type: ignore[method-assign]
