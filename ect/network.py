"""The U-Net of DDPM++ (Song et al. 2021, in EDM's arrangement), from 8x8x1 to 32x32x3 and up.

With channels 128, multipliers (2, 2, 2), 4 blocks and attention at 16 it is the network of ECT's
CIFAR-10 experiments: 55,732,739 parameters.
"""

import math

import torch
from torch import nn
from torch.nn import functional

SKIP_SCALE = math.sqrt(0.5)  # keeps the variance of (branch + skip) at that of its parts


def norm(channels):
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-6)


def scaled(layer, gain=1.0):
    """Xavier-uniform weights times `gain`, zero bias."""
    nn.init.xavier_uniform_(layer.weight)
    layer.weight.data.mul_(gain)
    nn.init.zeros_(layer.bias)
    return layer


class Embedding(nn.Module):
    """c_noise -> features: sinusoids of frequencies 1 to 1e-4, then a two-layer perceptron."""

    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        frequencies = 1e4 ** -(torch.arange(half) / (half - 1))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.first = scaled(nn.Linear(channels, 4 * channels))
        self.second = scaled(nn.Linear(4 * channels, 4 * channels))

    def forward(self, c_noise):
        angles = c_noise[:, None] * self.frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=1).to(self.first.weight.dtype)
        return functional.silu(self.second(functional.silu(self.first(waves))))


class Attention(nn.Module):
    """Single-head self-attention over the pixels, with its own skip connection."""

    def __init__(self, channels):
        super().__init__()
        self.norm = norm(channels)
        self.qkv = scaled(nn.Conv2d(channels, 3 * channels, 1), math.sqrt(0.2))
        self.proj = scaled(nn.Conv2d(channels, channels, 1), 1e-5)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=2)  # (B, HW, C)
        mixed = functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return (self.proj(mixed.transpose(1, 2).reshape(x.shape)) + x) * SKIP_SCALE


class Block(nn.Module):
    """Norm, SiLU, convolution twice, the noise embedding added in between; resamples on request."""

    def __init__(self, inputs, outputs, embedding, dropout, attention=False, resample=None):
        super().__init__()
        self.resample, self.dropout = resample, dropout
        self.norm0, self.norm1 = norm(inputs), norm(outputs)
        self.conv0 = scaled(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.conv1 = scaled(nn.Conv2d(outputs, outputs, 3, padding=1), 1e-5)
        self.affine = scaled(nn.Linear(embedding, outputs))
        projects = inputs != outputs or resample
        self.skip = scaled(nn.Conv2d(inputs, outputs, 1)) if projects else nn.Identity()
        self.attention = Attention(outputs) if attention else nn.Identity()

    def sized(self, x):
        if self.resample == "down":
            return functional.avg_pool2d(x, 2)
        if self.resample == "up":
            return functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return x

    def forward(self, x, embedding):
        h = self.conv0(self.sized(functional.silu(self.norm0(x))))
        h = functional.silu(self.norm1(h + self.affine(embedding)[:, :, None, None]))
        h = self.conv1(functional.dropout(h, self.dropout, self.training))
        return self.attention((h + self.skip(self.sized(x))) * SKIP_SCALE)


class UNet(nn.Module):
    """F(x, c_noise): images (B, C, H, W) and noise labels (B,) -> (B, C, H, W).

    `resolution` is H = W, `attention` lists the resolutions with self-attention, `dropout` is
    active in train mode and draws from torch's default generator.
    """

    def __init__(
        self, resolution, image_channels, channels, multipliers, blocks, attention, dropout
    ):
        super().__init__()
        widths = [channels * m for m in multipliers]
        sizes = [resolution >> level for level in range(len(widths))]
        self.embedding = Embedding(channels)

        def block(inputs, outputs, attend=False, resample=None):
            return Block(inputs, outputs, 4 * channels, dropout, attend, resample)

        self.stem = scaled(nn.Conv2d(image_channels, channels, 3, padding=1))
        self.encoder, skips = nn.ModuleList(), [channels]
        for level, (width, size) in enumerate(zip(widths, sizes)):
            if level > 0:
                self.encoder.append(block(skips[-1], skips[-1], resample="down"))
                skips.append(skips[-1])
            for _ in range(blocks):
                self.encoder.append(block(skips[-1], width, size in attention))
                skips.append(width)

        last = skips[-1]
        self.middle = nn.ModuleList([block(last, last, True), block(last, last)])
        self.decoder, self.takes_skip = nn.ModuleList(), []
        for level, (width, size) in reversed(list(enumerate(zip(widths, sizes)))):
            if level < len(widths) - 1:
                self.decoder.append(block(last, last, resample="up"))
                self.takes_skip.append(False)
            for index in range(blocks + 1):
                attend = index == blocks and size in attention
                self.decoder.append(block(last + skips.pop(), width, attend))
                self.takes_skip.append(True)
                last = width
        self.head_norm = norm(last)
        self.head = scaled(nn.Conv2d(last, image_channels, 3, padding=1), 1e-5)

    def forward(self, x, c_noise):
        embedding = self.embedding(c_noise)
        skips = [x := self.stem(x)]
        for block in self.encoder:
            skips.append(x := block(x, embedding))
        for block in self.middle:
            x = block(x, embedding)
        for block, takes_skip in zip(self.decoder, self.takes_skip):
            x = block(torch.cat([x, skips.pop()], dim=1) if takes_skip else x, embedding)
        return self.head(functional.silu(self.head_norm(x)))
