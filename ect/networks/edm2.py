"""EDM2's U-Net (Karras et al. 2024, config G): every layer preserves the magnitude of what it maps.

A magnitude is a root mean square. Weights have magnitude 1 for each output channel, whatever is
stored; sums and concatenations are scaled by what their parts would have if they were independent;
there are no norms with learned gains and no biases. Equations are those of the paper.
"""

import functools
import math

import torch
from torch import nn
from torch.nn import functional

from ect.networks.dropout import Dropout, deal, layers
from ect.networks.unet import Resample
from ect.networks.widths import rates

EPS = 1e-4
SILU = 0.596  # sqrt(E[silu(z)^2]) for z ~ N(0, 1)
BRANCH = 0.3  # the share of a block's branch, and of its attention, in the sum
HEAD = 64  # channels of a head of attention
CLIP = 256.0  # what a block puts out at most, within the range of fp16
U_FEATURES = 128


def unit(x, dims=None):
    """x divided by its magnitude over `dims`, by default over all but the first (eq. 47)."""
    dims = tuple(range(1, x.ndim)) if dims is None else dims
    count = math.prod([x.shape[dim] for dim in dims])  # a list, which torch.compile traces
    dtype = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=dtype)
    return x / (EPS + norm / math.sqrt(count)).to(x.dtype)


def mp_silu(x):
    """SiLU that keeps the magnitude of normal features (eq. 81)."""
    return functional.silu(x) / SILU


def mp_sum(a, b, share):
    """(1 - share) a + share b, of the magnitude of independent a and b (eq. 88)."""
    return torch.lerp(a, b, share) / math.hypot(1 - share, share)


def mp_cat(a, b):
    """The channels of a and b, both of which contribute equally to the magnitude (eq. 103)."""
    scale = math.sqrt((a.shape[1] + b.shape[1]) / 2)
    parts = [scale / math.sqrt(part.shape[1]) * part for part in (a, b)]
    return torch.cat(parts, dim=1)


class Layer(nn.Module):
    """A convolution of `size` x `size`, or of vectors (B, C) a linear map (`size` 0), whose
    weights have magnitude 1 in each output channel, times `gain`."""

    def __init__(self, inputs, outputs, size=0):
        super().__init__()
        shape = (outputs, inputs, size, size) if size else (outputs, inputs)
        self.weight = nn.Parameter(unit(torch.randn(shape)))

    def forward(self, x, gain=1.0):
        weight = unit(self.weight) * (gain / math.sqrt(self.weight[0].numel()))
        if weight.ndim == 2:
            return functional.linear(x, weight)
        return functional.conv2d(x, weight, padding=weight.shape[-1] // 2)


@torch.no_grad()
def force_unit_weights(network):
    """Give the stored weights of all `Layer`s in a network magnitude 1, in place (eq. 66), so that
    the optimizer's steps have one relative size. Nothing to do for any other network."""
    for layer in network.modules():
        if isinstance(layer, Layer):
            layer.weight.copy_(unit(layer.weight))


class Fourier(nn.Module):
    """c (B,) -> sqrt(2) cos(2 pi (f c + phase)) (B, width), f ~ N(0, 1), drawn once (eq. 75)."""

    frequencies: torch.Tensor
    phases: torch.Tensor

    def __init__(self, width):
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(width))
        self.register_buffer("phases", 2 * math.pi * torch.rand(width))

    def forward(self, c):
        return math.sqrt(2) * (c[:, None] * self.frequencies + self.phases).cos()


class Embedding(nn.Module):
    """c_noise (B,), label (B,) or None -> features (B, width). No label (None, or -1) is the zero
    vector in place of a one-hot one."""

    def __init__(self, waves, width, classes):
        super().__init__()
        self.classes = classes
        self.waves, self.noise = Fourier(waves), Layer(waves, width)
        self.label = Layer(classes, width) if classes else None

    def forward(self, c_noise, label=None):
        features = self.noise(self.waves(c_noise))
        if self.label is not None:
            label = torch.full_like(c_noise, -1) if label is None else label
            hot = label[:, None] == torch.arange(self.classes, device=label.device)
            scaled = hot.to(features.dtype) * math.sqrt(self.classes)
            features = mp_sum(features, self.label(scaled), 0.5)
        return mp_silu(features)


class Uncertainty(nn.Module):
    """u (B,) of c_noise (B,): the logarithm of the variance that a loss has at that level."""

    def __init__(self):
        super().__init__()
        self.waves, self.linear = Fourier(U_FEATURES), Layer(U_FEATURES, 1)

    def forward(self, c_noise):
        return self.linear(self.waves(c_noise))[:, 0]


class Attention(nn.Module):
    """Self-attention over the pixels; queries, keys and values of each head have magnitude 1."""

    def __init__(self, channels):
        super().__init__()
        self.heads = channels // HEAD
        self.qkv, self.proj = Layer(channels, 3 * channels, 1), Layer(channels, channels, 1)

    def forward(self, x):
        rows = self.qkv(x).flatten(2).unflatten(1, (3, self.heads, -1))  # (B, 3, heads, C', HW)
        q, k, v = unit(rows, (3,)).transpose(3, 4).unbind(1)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)
        return mp_sum(x, self.proj(y), BRANCH)


class Block(nn.Module):
    """Two convolutions beside a skip connection (fig. 21); resamples first, on request. In the
    encoder the skip connection is projected and normalised before the branch begins."""

    def __init__(
        self, inputs, outputs, embedding, dropout, encodes, attention=False, resample=None
    ):
        super().__init__()
        self.dropout, self.encodes = Dropout(dropout), encodes
        self.sized = Resample(resample, (1, 1)) if resample else nn.Identity()
        self.skip = Layer(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.conv0 = Layer(outputs if encodes else inputs, outputs, 3)
        self.affine, self.gain = Layer(embedding, outputs), nn.Parameter(torch.zeros(()))
        self.conv1 = Layer(outputs, outputs, 3)
        attends = attention and outputs >= HEAD
        self.attention = Attention(outputs) if attends else nn.Identity()

    def forward(self, x, embedding):
        x = self.sized(x)
        if self.encodes:
            x = unit(self.skip(x), (1,))
        y = self.conv0(mp_silu(x))
        y = mp_silu(y * (1 + self.affine(embedding, self.gain))[:, :, None, None].to(y.dtype))
        y = self.conv1(self.dropout(y))
        x = mp_sum(x if self.encodes else self.skip(x), y, BRANCH)
        return self.attention(x).clamp(-CLIP, CLIP)


class EDM2(nn.Module):
    """F(x, c_noise): images (B, C, H, W) and noise labels (B,) -> (B, C, H, W); zero at the start.

    `resolution` is H = W, `attention` lists the resolutions with self-attention, in layers of 64
    channels or more. `dropout` is active in train mode, by the `Masks` applied, on the levels of at
    most `dropout_at` pixels a side. `classes` > 0 takes class labels (B,), int64. With
    `uncertainty` the network has a second output, `uncertainty(c_noise)`, by which pretraining
    weighs its loss.
    """

    def __init__(
        self,
        resolution,
        image_channels,
        channels,
        multipliers,
        blocks,
        attention,
        dropout,
        dropout_at=None,
        classes=0,
        uncertainty=False,
    ):
        super().__init__()
        sides = [resolution >> n for n in range(len(multipliers))]
        attends, widths = [side in attention for side in sides], [channels * m for m in multipliers]
        levels = list(zip(widths, attends, rates(dropout, dropout_at, sides)))
        block = functools.partial(Block, embedding=max(widths))
        self.classes = classes
        self.embedding = Embedding(widths[0], max(widths), classes)
        self.stem = Layer(image_channels + 1, widths[0], 3)
        skips = self._encoder(functools.partial(block, encodes=True), levels, blocks)
        self._decoder(functools.partial(block, encodes=False), levels, blocks, skips)
        self.head, self.gain = Layer(widths[0], image_channels, 3), nn.Parameter(torch.zeros(()))
        self.uncertainty = Uncertainty() if uncertainty else None
        self.dropouts = layers(self)

    def _encoder(self, block, levels, blocks):
        """Builds the encoder; returns the widths of its outputs, the stem's first."""
        self.encoder, skips = nn.ModuleList(), [levels[0][0]]
        for level, (width, attends, p) in enumerate(levels):
            if level > 0:
                last = skips[-1]
                self.encoder.append(block(last, last, dropout=p, resample="down"))
                skips.append(last)
            for _ in range(blocks):
                self.encoder.append(block(skips[-1], width, dropout=p, attention=attends))
                skips.append(width)
        return skips

    def _decoder(self, block, levels, blocks, skips):
        last, deepest = skips[-1], levels[-1][2]
        self.middle = nn.ModuleList(
            block(last, last, dropout=deepest, attention=attends) for attends in (True, False)
        )
        self.decoder, self.takes_skip = nn.ModuleList(), []
        for level, (width, attends, p) in reversed(list(enumerate(levels))):
            if level < len(levels) - 1:
                self.decoder.append(block(last, last, dropout=p, resample="up"))
                self.takes_skip.append(False)
            for _ in range(blocks + 1):
                inputs = last + skips.pop()
                self.decoder.append(block(inputs, width, dropout=p, attention=attends))
                self.takes_skip.append(True)
                last = width

    def forward(self, x, c_noise, label=None):
        deal(self.dropouts, x)
        return self.computed(x, c_noise, label)

    def computed(self, x, c_noise, label=None):
        """`forward` under the masks that were dealt."""
        if label is not None and not self.classes:
            raise ValueError("found labels; allowed: none, as this network has no classes")
        with torch.autocast(x.device.type, enabled=False):  # the noise level needs all its digits
            embedding = self.embedding(c_noise, label)
        skips = [x := self.stem(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))]
        for block in self.encoder:
            skips.append(x := block(x, embedding))
        for block in self.middle:
            x = block(x, embedding)
        for block, takes_skip in zip(self.decoder, self.takes_skip):
            x = block(mp_cat(x, skips.pop()) if takes_skip else x, embedding)
        return self.head(x, self.gain)
