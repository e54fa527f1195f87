"""The U-Net's blocks in the kernels for the CPU: the mathematics and the dropout masks of
`ect/networks/unet.py`, but not its rounding.

Norm, SiLU and dropout are one kernel, forward and backward. Convolutions of 3x3:

- float32: by Winograd, forward and backward;
- bfloat16: torch's, forward and backward;
- `tf32` on a CPU with AMX: forward by Winograd with 16 binary digits, as a consistency model's loss
  is a small difference of two outputs; backward torch's, in bfloat16.
"""

import functools
import math

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ect.networks import kernels
from ect.networks.unet import Attention, Block, UNet


def _half(x):
    return kernels.last(x.bfloat16())


def _half_gradients(dy, x, weight, wanted=(True, True, True)):
    """The gradients of x, weight and bias that are wanted, in bfloat16, by torch."""
    sides = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)  # stride, padding, dilation; one group
    return torch.ops.aten.convolution_backward(dy, x, weight, [len(weight)], *sides, wanted)


def _scaled(dy, factor):
    return kernels.last(dy) if factor == 1 else kernels.last(dy) * factor


def _require(*tensors, kinds=(torch.float32,)):
    """The C code cannot check dtypes: raises `TypeError` here for others than `kinds`."""
    for x in tensors:
        if x is not None and x.dtype not in kinds:
            allowed = ", ".join(map(str, kinds))
            raise TypeError(f"kernels: native; found {x.dtype}; allowed: {allowed}")


class Convolution(torch.autograd.Function):
    """`(conv2d(x, weight, bias, padding=1) + skip) factor` of x (B, C, H, W), weight (O, C, 3, 3),
    bias (O,) and skip (B, O, H, W) or None; float32, H and W multiples of 4, C and O of 16. With
    `split` (C and O multiples of 32, a CPU with AMX) each number is a sum of two bfloat16 forward,
    and one bfloat16 backward."""

    @staticmethod
    def forward(ctx, x, weight, bias, skip=None, factor=1.0, split=False):
        _require(x, weight, bias, skip)
        x, skip = kernels.last(x), None if skip is None else kernels.last(skip)
        ctx.save_for_backward(x, weight)
        ctx.skipped, ctx.factor, ctx.split = skip is not None, factor, split
        return kernels.filtered(x, weight, bias, skip, factor, split=split)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        dy = _scaled(dy, ctx.factor)
        if ctx.split:
            gradients = _half_gradients(_half(dy), _half(x), _half(weight))
        else:
            dx = kernels.filtered(dy, weight, turned=True)
            gradients = dx, *kernels.filter_gradients(x, dy)
        return *gradients, dy if ctx.skipped else None, None, None


class Activation(torch.autograd.Function):
    """dropout(silu(norm(x + features))) of x (B, C, H, W), float32 or bfloat16, and features (B, C)
    or None, with groups' gain and bias (C,); dropout of share p by the masks of `keys` (B, 2);
    without `silu` the norm alone. Computed in float32. Returns x too: other
    layers take x from here, so that this backward pass adds their gradient."""

    @staticmethod
    def forward(ctx, x, features, gain, bias, groups, eps, p, keys, silu=True):
        _require(x, kinds=(torch.float32, torch.bfloat16))
        _require(gain, bias)
        x, ctx.options = kernels.last(x), (groups, p, keys, silu)
        y, stats = kernels.activate(x, features, gain, bias, eps, ctx.options)
        ctx.save_for_backward(x, gain, bias, stats)
        ctx.has_features = features is not None
        ctx.set_materialize_grads(False)
        return y, x

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, aside):
        if dy is None:
            return aside, *[None] * 8
        dx, d_features, *rest = kernels.activate_back(
            ctx.saved_tensors, kernels.last(dy), aside, ctx.options
        )
        unused = [None] * 5  # groups, eps, p, keys, silu
        return dx, d_features if ctx.has_features else None, *rest, *unused


class Layer(torch.autograd.Function):
    """`Convolution` with `split` of the `Activation` of x; returns x too. The backward pass
    computes the activation again instead of keeping it; it and its gradient are in bfloat16."""

    @staticmethod
    def forward(ctx, x, features, gain, bias, groups, eps, p, keys, weight, offset, skip, factor):
        _require(x, gain, bias, weight, offset, skip)
        x, skip = kernels.last(x), None if skip is None else kernels.last(skip)
        ctx.options, ctx.factor = (groups, p, keys, True), factor
        h, stats = kernels.activate(x, features, gain, bias, eps, ctx.options)
        ctx.save_for_backward(x, gain, bias, stats, weight)
        ctx.has_features, ctx.skipped = features is not None, skip is not None
        ctx.set_materialize_grads(False)
        return kernels.filtered(h, weight, offset, skip, factor, split=True), x

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, aside):
        if dy is None:
            return aside, *[None] * 11
        *kept, weight = ctx.saved_tensors
        dy, h = _scaled(dy, ctx.factor), torch.empty_like(kept[0], dtype=torch.bfloat16)
        arguments = _half(dy), h, _half(weight)
        dh, _, _ = _half_gradients(*arguments, (True, False, False))
        dx, d_features, *norm = kernels.activate_back(kept, kernels.last(dh), aside, ctx.options, h)
        _, *rest = _half_gradients(*arguments, (False, True, True))
        d_features = d_features if ctx.has_features else None
        skip = dy if ctx.skipped else None
        unused = [None] * 4  # groups, eps, p, keys
        return dx, d_features, *norm, *unused, *rest, skip, None


def activated(norm, x, features=None, p=0.0, keys=None, silu=True):
    gain, bias = norm.weight, norm.bias
    return Activation.apply(x, features, gain, bias, norm.num_groups, norm.eps, p, keys, silu)


def _ours(x):
    """Whether `Convolution` takes x; torch takes bfloat16, and other heights and widths."""
    return x.dtype == torch.float32 and x.shape[2] % 4 == 0 and x.shape[3] % 4 == 0


def _wide(conv):
    """Whether the convolution has widths that `split` can take."""
    return conv.in_channels % kernels.PANEL == conv.out_channels % kernels.PANEL == 0


def convolved(conv, x, skip=None, factor=1.0, split=False):
    """(conv(x) + skip) factor, or conv(x)."""
    if _ours(x):
        split = split and _wide(conv)
        return Convolution.apply(x, conv.weight, conv.bias, skip, factor, split)
    if skip is None:
        return conv(x)
    weight, bias = conv.weight * factor, conv.bias * factor
    return torch.add(functional.conv2d(x, weight, bias, padding=1), skip, alpha=factor)


def layer(split, norm, conv, x, features=None, p=0.0, keys=None, sized=None, skip=None, factor=1.0):
    """(conv(sized(dropout(silu(norm(x + features))))) + skip) factor; and x, as `Activation`."""
    plain = sized is None or isinstance(sized, nn.Identity)
    if split and plain and _ours(x) and _wide(conv):
        arguments = (x, features, norm.weight, norm.bias, norm.num_groups, norm.eps, p, keys)
        return Layer.apply(*arguments, conv.weight, conv.bias, skip, factor)
    h, x = activated(norm, x, features, p, keys)
    return convolved(conv, h if plain else sized(h), skip, factor, split), x


def pointwise(conv, x):
    """A convolution of 1x1 as a matrix product."""
    y = functional.linear(kernels.last(x).permute(0, 2, 3, 1), conv.weight.flatten(1), conv.bias)
    return y.permute(0, 3, 1, 2)


def block(self, split, x, embedding):
    """`Block.forward` in these kernels."""
    p = self.dropout.share()
    keys = self.dropout.keys if p else None
    h, x = layer(split, self.norm0, self.conv0, x, sized=self.sized)
    skip, features = self.skip(self.sized(x)), self.affine(embedding)
    last = {"skip": skip, "factor": self.style.skip_scale}
    h, _ = layer(split, self.norm1, self.conv1, h, features, p, keys, **last)
    return self.attention(h)


def attention(self, x):
    """`Attention.forward`."""
    h, x = activated(self.norm, x, silu=False)
    return (self.proj(self.attended(h)) + x) * self.skip_scale


def attend(q, k, v):
    """`scaled_dot_product_attention` as two matrix products, whose gradients are faster on a CPU;
    each head takes memory for HW x HW numbers."""
    return torch.softmax(q / math.sqrt(q.shape[-1]) @ k.mT, -1) @ v


def use(network, precision="fp32"):
    """Make a network's blocks compute in these kernels: with `split` in `tf32`, on a CPU with AMX;
    for `bf16` the caller uses autocast. Raises `ValueError` for a network, a device or widths that
    the kernels do not support."""
    if not isinstance(network, UNet) or network.stem.weight.device.type != "cpu":
        raise ValueError("kernels: native; allowed: on a CPU, for the U-Nets of this package")
    widths = [m.num_channels for m in network.modules() if isinstance(m, nn.GroupNorm)]
    adm = any(isinstance(m, Block) and m.style.adm for m in network.modules())
    if adm or any(width % kernels.LANES or width > kernels.MOST for width in widths):
        raise ValueError("kernels: native; allowed: ddpmpp, ncsnpp; widths: multiples of 16")
    split = bool(kernels.library().split_ready()) and precision == "tf32"
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
