"""The U-Net's blocks in kernels of their own for the CPU (`ect/kernels`).

Norm, SiLU and dropout in one pass, forward and backward, with a mask that is a function of (seed,
place). In float32, convolutions of 3x3 by Winograd's F(4x4, 3x3) (Lavin and Gray 2016): 36 products
for a tile of 4x4 pixels in place of 144; in bfloat16 they are torch's. In `tf32`, on a CPU with
AMX, they are Winograd's with sixteen digits forward, as a consistency model's loss is a small
difference of two outputs, and torch's in bfloat16 backward. The mathematics of `ect/network.py`,
but not its rounding nor its masks.
"""

import ctypes
import functools
import math
import subprocess
import tempfile
import threading
from pathlib import Path

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ect.network import Attention, Block, UNet

COMMAND = ("cc", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
# Floats of a vector of the kernels, channels that a split tile takes, and channels at most.
LANES, PANEL, MOST = 16, 32, 4096
# Tiles that a thread does at a time, where the filters fit into a core's cache of so many bytes and
# where not, and of which number they are multiples: in float32, and split.
CACHE = 2**21
TILES = {False: (16, 128, 8), True: (32, 128, 32)}
TILES_BACK = (48, 48, 8)


@functools.cache
def _library():
    """The kernels, compiled when a process first needs them. Raises `ValueError` where there is no
    compiler for them."""
    sources = sorted(map(str, Path(__file__).with_name("kernels").glob("*.c")))
    with tempfile.TemporaryDirectory() as folder:
        words = [*COMMAND, *sources, "-o", f"{folder}/native.so", "-lm"]
        try:
            subprocess.run(words, capture_output=True, text=True, check=True)
            library = ctypes.CDLL(f"{folder}/native.so")
        except (OSError, subprocess.CalledProcessError) as error:
            why = f"{COMMAND[0]} not found" if isinstance(error, FileNotFoundError) else str(error)
            lines = (getattr(error, "stderr", None) or why).splitlines()
            why = next((line for line in lines if "error" in line), lines[0])
            raise ValueError(f"kernels: native; {' '.join(COMMAND)} failed: {why}") from None
    library.keep_memory()
    return library


def _call(name, tensors, first, sizes, *numbers):
    """Run a kernel in as many threads as torch has."""
    pointers = [ctypes.c_void_p(None if x is None else x.data_ptr()) for x in tensors]
    sizes = (first, torch.get_num_threads(), *sizes)
    rest = [ctypes.c_long(size) for size in sizes] + [ctypes.c_float(x) for x in numbers]
    getattr(_library(), name)(*pointers, *rest)


_kept = threading.local()


def _scratch(name, size):
    """Memory that the next call may overwrite: fresh pages would cost as much as the work."""
    kept = vars(_kept)
    if name not in kept or len(kept[name]) < size:
        kept[name] = torch.empty(size, dtype=torch.float32)
    return kept[name][:size]


def _room(each):
    """`_scratch` of so many floats for each thread."""
    return _scratch("room", torch.get_num_threads() * each)


def _last(x):
    return x.contiguous(memory_format=torch.channels_last)


def _tiles(kind, filters, count):
    """How many of `count` tiles are done at a time, as equal shares for all."""
    narrow, wide, unit = kind
    shares = -(-count // (narrow if 4 * len(filters) <= CACHE else wide))
    return -(-count // (shares * unit)) * unit


def _filters(c, o):
    """Memory for the filters of a convolution from c to o channels, or for their gradients."""
    return _scratch("filters", 36 * (c * o + 32))


def _filtered(x, weight, bias=None, skip=None, factor=1.0, turned=False, split=False):
    """(x * weight + bias + skip) factor, of x (B, C, H, W) and weight (O, C, 3, 3); `turned`, of
    weight (C, O, 3, 3), the adjoint of its convolution."""
    (b, c, h, w), o = x.shape, weight.shape[turned]
    kind, filters = "split_" * split, _filters(c, o)
    _call(f"{kind}filters", (_last(weight), filters), c, (o,) if split else (o, turned))
    y = torch.empty((b, o, h, w), dtype=torch.float32, memory_format=torch.channels_last)
    tiles = _tiles(TILES[split], filters, -(-b * h * w // 16 // torch.get_num_threads()))
    each = 18 * (tiles * c + 32) + 36 * (tiles * o + 32) + 72 * tiles  # v, m, pointers to pixels
    sizes = (h, w, c, o, tiles, each)
    _call(f"{kind}convolve", (x, filters, bias, skip, y, _room(each)), b, sizes, factor)
    return y


def _filter_gradients(x, dy):
    """The gradients (O, C, 3, 3) of the weight and (O,) of the bias of `_filtered`."""
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


def _half(x):
    return _last(x.bfloat16())


def _half_gradients(dy, x, weight, wanted=(True, True, True)):
    """Those of x, weight and bias that are wanted, all in bfloat16, by torch."""
    sides = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)  # stride, padding, dilation; one group
    return torch.ops.aten.convolution_backward(dy, x, weight, [len(weight)], *sides, wanted)


def _scaled(dy, factor):
    return _last(dy) if factor == 1 else _last(dy) * factor


def _require(*tensors, kinds=(torch.float32,)):
    """The kernels take numbers for what they expect."""
    for x in tensors:
        if x is not None and x.dtype not in kinds:
            allowed = ", ".join(map(str, kinds))
            raise TypeError(f"kernels: native; found {x.dtype}; allowed: {allowed}")


class Convolution(torch.autograd.Function):
    """`(conv2d(x, weight, bias, padding=1) + skip) factor` of x (B, C, H, W), weight (O, C, 3, 3),
    bias (O,) and skip (B, O, H, W) or None; float32, H and W multiples of 4, C and O of 16. With
    `split` each number is the sum of two of bfloat16, and in the gradients one (C and O multiples
    of 32, a CPU with AMX)."""

    @staticmethod
    def forward(ctx, x, weight, bias, skip=None, factor=1.0, split=False):
        _require(x, weight, bias, skip)
        x, skip = _last(x), None if skip is None else _last(skip)
        ctx.save_for_backward(x, weight)
        ctx.skipped, ctx.factor, ctx.split = skip is not None, factor, split
        return _filtered(x, weight, bias, skip, factor, split=split)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        dy = _scaled(dy, ctx.factor)
        if ctx.split:
            found = _half_gradients(_half(dy), _half(x), _half(weight))
        else:
            found = _filtered(dy, weight, turned=True), *_filter_gradients(x, dy)
        return *found, dy if ctx.skipped else None, None, None


def _activate(x, features, gain, bias, eps, options):
    """dropout(silu(norm(x + features))), and (B, 2, C) that `_activate_back` takes; `options` are
    groups, share of dropout, seed of its mask, and whether there is a SiLU."""
    groups, p, seed, silu = options
    b, c, h, w = x.shape
    features = None if features is None else features.float().contiguous()
    y, stats = torch.empty_like(x), torch.empty(b, 2, c, dtype=torch.float32)
    sizes = (x.dtype == torch.bfloat16, h * w, c, groups, silu, seed)
    _call("activate", (x, features, gain, bias, y, stats), b, sizes, eps, p)
    return y, stats


def _activate_back(kept, dy, aside, options, y=None):
    """The gradients of x, to which `aside` is added, features, gain and bias; `kept` are x, gain,
    bias and stats. To a `y` in bfloat16, that of the forward pass is written once more."""
    (x, gain, bias, stats), (groups, p, seed, silu) = kept, options
    b, c, h, w = x.shape
    dx, parts = torch.empty_like(x), torch.empty(3, b, c, dtype=torch.float32)
    aside = None if aside is None else _last(aside)
    halves = (x.dtype == torch.bfloat16, dy.dtype == torch.bfloat16)
    given = (x, gain, bias, stats, dy, aside, dx, *parts, y, _room(h * w * c))
    _call("activate_back", given, b, (*halves, h * w, c, groups, silu, seed), p)
    return dx, parts[2], *parts[:2].sum(1)


class Activation(torch.autograd.Function):
    """dropout(silu(norm(x + features))) of x (B, C, H, W), float32 or bfloat16, and features (B, C)
    or None, with groups' gain and bias (C,); dropout of share p by the mask of an integer `seed`;
    without `silu` the norm alone. Computed in float32. Returns x too: whoever else needs it takes
    it from here, as its gradient is then added on the way."""

    @staticmethod
    def forward(ctx, x, features, gain, bias, groups, eps, p, seed, silu=True):
        _require(x, kinds=(torch.float32, torch.bfloat16))
        _require(gain, bias)
        x, ctx.options = _last(x), (groups, p, seed, silu)
        y, stats = _activate(x, features, gain, bias, eps, ctx.options)
        ctx.save_for_backward(x, gain, bias, stats)
        ctx.told = features is not None
        ctx.set_materialize_grads(False)
        return y, x

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, aside):
        if dy is None:
            return aside, *[None] * 8
        dx, told, *rest = _activate_back(ctx.saved_tensors, _last(dy), aside, ctx.options)
        return dx, told if ctx.told else None, *rest, *[None] * 5


class Layer(torch.autograd.Function):
    """`Convolution` with `split`, of an `Activation` of x, which it returns too. The gradient in
    between is in bfloat16, and so is the activation, which is computed again, not kept."""

    @staticmethod
    def forward(ctx, x, features, gain, bias, groups, eps, p, seed, weight, offset, skip, factor):
        _require(x, gain, bias, weight, offset, skip)
        x, skip = _last(x), None if skip is None else _last(skip)
        ctx.options, ctx.factor = (groups, p, seed, True), factor
        h, stats = _activate(x, features, gain, bias, eps, ctx.options)
        ctx.save_for_backward(x, gain, bias, stats, weight)
        ctx.told, ctx.skipped = features is not None, skip is not None
        ctx.set_materialize_grads(False)
        return _filtered(h, weight, offset, skip, factor, split=True), x

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, aside):
        if dy is None:
            return aside, *[None] * 11
        *kept, weight = ctx.saved_tensors
        dy, h = _scaled(dy, ctx.factor), torch.empty_like(kept[0], dtype=torch.bfloat16)
        given = _half(dy), h, _half(weight)
        dh, _, _ = _half_gradients(*given, (True, False, False))
        dx, told, *norm = _activate_back(kept, _last(dh), aside, ctx.options, h)
        _, *rest = _half_gradients(*given, (False, True, True))
        told, skip = told if ctx.told else None, dy if ctx.skipped else None
        return dx, told, *norm, *[None] * 4, *rest, skip, None


def activated(norm, x, features=None, p=0.0, seed=0, silu=True):
    gain, bias = norm.weight, norm.bias
    return Activation.apply(x, features, gain, bias, norm.num_groups, norm.eps, p, seed, silu)


def _ours(x):
    """Whether `Convolution` takes x. Of bfloat16, and other heights and widths, torch does."""
    return x.dtype == torch.float32 and x.shape[2] % 4 == 0 and x.shape[3] % 4 == 0


def _wide(conv):
    """Whether its convolution can be split."""
    return conv.in_channels % PANEL == conv.out_channels % PANEL == 0


def convolved(conv, x, skip=None, factor=1.0, split=False):
    """(conv(x) + skip) factor, or conv(x)."""
    if _ours(x):
        split = split and _wide(conv)
        return Convolution.apply(x, conv.weight, conv.bias, skip, factor, split)
    if skip is None:
        return conv(x)
    weight, bias = conv.weight * factor, conv.bias * factor
    return torch.add(functional.conv2d(x, weight, bias, padding=1), skip, alpha=factor)


def layer(split, norm, conv, x, features=None, p=0.0, seed=0, sized=None, skip=None, factor=1.0):
    """(conv(sized(dropout(silu(norm(x + features))))) + skip) factor; and x, as `Activation`."""
    plain = sized is None or isinstance(sized, nn.Identity)
    if split and plain and _ours(x) and _wide(conv):
        given = (x, features, norm.weight, norm.bias, norm.num_groups, norm.eps, p, seed)
        return Layer.apply(*given, conv.weight, conv.bias, skip, factor)
    h, x = activated(norm, x, features, p, seed)
    return convolved(conv, h if plain else sized(h), skip, factor, split), x


def pointwise(conv, x):
    """A convolution of 1x1 as the product of matrices that it is."""
    y = functional.linear(_last(x).permute(0, 2, 3, 1), conv.weight.flatten(1), conv.bias)
    return y.permute(0, 3, 1, 2)


def block(self, split, x, embedding):
    """`Block.forward` in these kernels; the seed of its mask is torch's default generator's."""
    p = self.dropout if self.training else 0.0
    seed = int(torch.randint(2**31, ())) if p else 0
    h, x = layer(split, self.norm0, self.conv0, x, sized=self.sized)
    skip, features = self.skip(self.sized(x)), self.affine(embedding)
    last = {"skip": skip, "factor": self.style.skip_scale}
    h, _ = layer(split, self.norm1, self.conv1, h, features, p, seed, **last)
    return self.attention(h)


def attention(self, x):
    """`Attention.forward`."""
    h, x = activated(self.norm, x, silu=False)
    return (self.proj(self.mixed(h)) + x) * self.skip_scale


def attend(q, k, v):
    """`scaled_dot_product_attention` in two products, whose gradients are faster on a CPU; for each
    head they take memory for HW x HW numbers."""
    return torch.softmax(q / math.sqrt(q.shape[-1]) @ k.mT, -1) @ v


def use(network, precision="fp32"):
    """Let a network's blocks compute in these kernels. In `tf32` they are split, on a CPU that can;
    `bf16` is for whoever calls it, by autocast. Raises `ValueError` for a network that they do not
    know."""
    if not isinstance(network, UNet) or network.stem.weight.device.type != "cpu":
        raise ValueError("kernels: native; allowed: on a CPU, for the U-Nets of this package")
    widths = [m.num_channels for m in network.modules() if isinstance(m, nn.GroupNorm)]
    adm = any(isinstance(m, Block) and m.style.adm for m in network.modules())
    if adm or any(width % LANES or width > MOST for width in widths):
        raise ValueError("kernels: native; allowed: ddpmpp, ncsnpp; widths in 16s")
    split = bool(_library().split_ready()) and precision == "tf32"
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            _set(module, forward=functools.partial(pointwise, module))
        elif isinstance(module, Block):
            _set(module, forward=functools.partial(block, module, split))
        elif isinstance(module, Attention):
            _set(module, forward=functools.partial(attention, module), attend=attend)


def _set(module, **functions):
    for name, function in functions.items():
        setattr(module, name, function)
