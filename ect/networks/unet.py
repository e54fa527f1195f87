"""The U-Nets DDPM++, NCSN++ (Song et al. 2021) and ADM (Dhariwal and Nichol 2021), as EDM has them.

DDPM++ with 128 channels, multipliers (2, 2, 2), 4 blocks, attention at 16 is ECT's for CIFAR-10.
"""

import functools
import math

import torch
from torch import nn
from torch.nn import functional

from ect.networks.dropout import Dropout, deal, layers
from ect.networks.style import SKIP_SCALE, STYLES, xavier_init
from ect.networks.widths import rates


class Embedding(nn.Module):
    """c_noise (B,), label (B,) or None -> features (B, 4 channels): sinusoids, then an MLP.

    Positional frequencies are fixed; Fourier ones, 2 pi N(0, 16^2), are drawn once and stored. A
    label is a one-hot vector through a linear map; no label (None, or -1) is the zero vector. A
    second time `span` (B,) has sinusoids and a linear map of its own. What augmentation did to an
    image, `augment` (B, labels), is added by a linear map too: zeros are no augmentation.
    """

    def __init__(self, channels, style=STYLES["ddpmpp"], kind="positional", classes=0, span=False):
        super().__init__()
        half = style.waves * channels // 2
        self.adm, self.classes = style.adm, classes
        if kind == "positional":
            frequencies = 1e4 ** -(torch.arange(half, device="cpu") / (half - (not style.adm)))
        else:
            frequencies = 2 * math.pi * 16 * torch.randn(half, device="cpu")
        self.register_buffer("frequencies", frequencies, persistent=kind == "fourier")
        self.first = style.init(nn.Linear(2 * half, 4 * channels))
        self.second = style.init(nn.Linear(4 * channels, 4 * channels))
        if classes:
            width = 4 * channels if style.adm else 2 * half
            self.label = nn.Linear(classes, width, bias=not style.adm)
            if style.adm:
                self.label.weight = nn.Parameter(torch.randn(width, classes))
            else:
                xavier_init(self.label)
        self.span = style.init(nn.Linear(2 * half, 2 * half)) if span else None
        self.augment: nn.Module | None = None

    def read_augmentation(self, labels, style):
        """Read so many labels of augmentation: after all other layers drew their weights, so that
        these are those of a network without."""
        self.augment = nn.Linear(labels, self.first.in_features, bias=False)
        style.init_labels(self.augment.weight)

    def waves(self, c_noise):
        angles = c_noise[:, None] * self.frequencies
        waves = [angles.sin(), angles.cos()]
        return torch.cat(waves[::-1] if self.adm else waves, dim=1).to(self.first.weight.dtype)

    def label_features(self, label):
        weight = self.label.weight
        label = torch.full((1,), -1, device=weight.device) if label is None else label
        hot = (label[:, None] == torch.arange(self.classes, device=weight.device)).to(weight.dtype)
        return self.label(hot if self.adm else hot * math.sqrt(self.classes))

    def forward(self, c_noise, label=None, span=None, augment=None):
        if label is not None and not self.classes:
            raise ValueError("found labels; allowed: none, as this network has no classes")
        features = self.waves(c_noise)
        if augment is not None:
            if self.augment is None:
                raise ValueError("found labels of augmentation; allowed: none: nothing reads them")
            features = features + self.augment(augment)
        if self.span is not None:
            features = features + self.span(self.waves(span))
        if self.classes and not self.adm:
            features = features + self.label_features(label)
        features = self.second(functional.silu(self.first(features)))
        if self.classes and self.adm:
            features = features + self.label_features(label)
        return functional.silu(features)


class Attention(nn.Module):
    """Self-attention over the pixels, with its own skip connection."""

    def __init__(self, channels, style=STYLES["ddpmpp"]):
        super().__init__()
        self.heads, self.skip_scale = style.heads(channels), style.skip_scale
        self.attend = functional.scaled_dot_product_attention
        self.norm = style.norm(channels)
        self.qkv = style.init(nn.Conv2d(channels, 3 * channels, 1), gain=math.sqrt(0.2))
        self.proj = style.init_last(nn.Conv2d(channels, channels, 1))

    def attended(self, h):
        """The attention's output for h (B, C, H, W), before `proj`."""
        rows = self.qkv(h).flatten(2).transpose(1, 2)  # (B, HW, 3 C)
        rows = rows.unflatten(2, (3, self.heads, -1))
        q, k, v = rows.permute(2, 0, 3, 1, 4)  # each (B, heads, HW, C / heads), and so the result
        return self.attend(q, k, v).transpose(2, 3).reshape(h.shape)

    def forward(self, x):
        return (self.proj(self.attended(self.norm(x))) + x) * self.skip_scale


class Resample(nn.Module):
    """Halves or doubles H and W with a separable filter; (1, 1) is the mean of 2x2, or copies."""

    kernel: torch.Tensor

    def __init__(self, way, taps, padding=None):
        super().__init__()
        self.way, self.short = way, tuple(taps) == (1, 1)
        self.padding = len(taps) // 2 - 1 if padding is None else padding
        line = torch.tensor(taps, device="cpu") / sum(taps)
        self.register_buffer("kernel", torch.outer(line, line)[None, None], persistent=False)

    def forward(self, x):
        if self.short and self.way == "down":
            return functional.avg_pool2d(x, 2)
        if self.short:
            return functional.interpolate(x, scale_factor=2.0, mode="nearest")
        depth = x.shape[1]
        kernel = self.kernel.expand(depth, -1, -1, -1)
        options = {"stride": 2, "padding": self.padding, "groups": depth}
        if self.way == "down":
            return functional.conv2d(x, kernel, **options)
        return functional.conv_transpose2d(x, 4 * kernel, **options)


class Pyramid(nn.Module):
    """Joins the halved input to the encoder: convolution, then the filter, no padding between."""

    def __init__(self, inputs, outputs, style):
        super().__init__()
        edge = len(style.taps) // 2 - 1
        self.conv = style.init(nn.Conv2d(inputs, outputs, 3, padding=1 + edge))
        self.halve = Resample("down", style.taps, padding=0)

    def forward(self, x, image):
        return (x + self.halve(self.conv(image))) * SKIP_SCALE


class Block(nn.Module):
    """Norm, SiLU, convolution twice, the noise embedding added in between; resamples on request."""

    def __init__(self, style, inputs, outputs, embedding, dropout, attention=False, resample=None):
        super().__init__()
        self.style, self.dropout, self.halves = style, Dropout(dropout), resample == "down"
        self.sized = Resample(resample, style.taps) if resample else nn.Identity()
        self.norm0, self.norm1 = style.norm(inputs), style.norm(outputs)
        self.conv0 = style.init(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.conv1 = style.init_last(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.affine = style.init(nn.Linear(embedding, outputs * (2 if style.adm else 1)))
        projects = inputs != outputs or (resample and not style.adm)
        self.skip = style.init(nn.Conv2d(inputs, outputs, 1)) if projects else nn.Identity()
        attends = attention and style.heads(outputs) > 0
        self.attention = Attention(outputs, style) if attends else nn.Identity()

    def modulated(self, h, embedding):
        """h after its norm, conditioned on the noise level."""
        features = self.affine(embedding)[:, :, None, None]
        if not self.style.adm:
            return self.norm1(h + features)
        scale, shift = features.chunk(2, dim=1)
        return self.norm1(h) * (1 + scale) + shift

    def forward(self, x, embedding):
        h = self.conv0(self.sized(functional.silu(self.norm0(x))))
        h = functional.silu(self.modulated(h, embedding))
        h = self.conv1(self.dropout(h))
        return self.attention((h + self.skip(self.sized(x))) * self.style.skip_scale)


class UNet(nn.Module):
    """F(x, c_noise): images (B, C, H, W) and noise labels (B,) -> (B, C, H, W).

    `resolution` is H = W, `attention` lists the resolutions with self-attention. `dropout`, on the
    levels of at most `dropout_at` pixels a side, is active in train mode, by the `Masks` applied.
    `classes` > 0 takes class labels (B,), int64, `span` a second time (B,), and `augment_labels`
    what augmentation did in training, (B, augment_labels).
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
        architecture="ddpmpp",
        embedding="positional",
        classes=0,
        span=False,
        dropout_at=None,
        augment_labels=0,
    ):
        super().__init__()
        sides, style = [resolution >> n for n in range(len(multipliers))], STYLES[architecture]
        widths, attends = [channels * m for m in multipliers], [side in attention for side in sides]
        levels = list(zip(widths, attends, rates(dropout, dropout_at, sides)))
        block = functools.partial(Block, style, embedding=4 * channels)
        self.embedding = Embedding(channels, style, embedding, classes, span)
        first = levels[0][0] if style.adm else channels
        self.stem = style.init(nn.Conv2d(image_channels, first, 3, padding=1))
        skips = self._encoder(block, levels, blocks, first)
        middle = functools.partial(block, skips[-1], skips[-1], dropout=levels[-1][2])
        self.middle = nn.ModuleList([middle(attention=True), middle()])
        self._decoder(block, levels, blocks, skips, everywhere=style.adm)
        self.head_norm = style.norm(levels[0][0])
        self.head = style.init_last(nn.Conv2d(levels[0][0], image_channels, 3, padding=1))
        self.pyramid, inputs = nn.ModuleList(), image_channels
        for width in widths[:-1] if style.pyramid else []:
            self.pyramid.append(Pyramid(inputs, width, style))
            inputs = width
        if augment_labels:
            self.embedding.read_augmentation(augment_labels, style)
        self.dropouts = layers(self)

    def _encoder(self, block, levels, blocks, first):
        """Builds the encoder; returns the widths of its outputs, the stem's first."""
        self.encoder, skips = nn.ModuleList(), [first]
        for level, (width, attend, p) in enumerate(levels):
            if level > 0:
                self.encoder.append(block(skips[-1], skips[-1], dropout=p, resample="down"))
                skips.append(skips[-1])
            for _ in range(blocks):
                self.encoder.append(block(skips[-1], width, dropout=p, attention=attend))
                skips.append(width)
        return skips

    def _decoder(self, block, levels, blocks, skips, everywhere):
        self.decoder, self.takes_skip, last = nn.ModuleList(), [], skips[-1]
        for level, (width, attend, p) in reversed(list(enumerate(levels))):
            if level < len(levels) - 1:
                self.decoder.append(block(last, last, dropout=p, resample="up"))
                self.takes_skip.append(False)
            for index in range(blocks + 1):
                inputs, attends = last + skips.pop(), attend and (everywhere or index == blocks)
                self.decoder.append(block(inputs, width, dropout=p, attention=attends))
                self.takes_skip.append(True)
                last = width

    def forward(self, x, c_noise, label=None, span=None, augment=None):
        deal(self.dropouts, x)
        return self.computed(x, c_noise, label, span, augment)

    def computed(self, x, c_noise, label=None, span=None, augment=None):
        """`forward` under the masks that were dealt."""
        embedding = self.embedding(c_noise, label, span, augment)
        image, pyramid = x, iter(self.pyramid)
        skips = [x := self.stem(x)]
        for block in self.encoder:
            x = block(x, embedding)
            if block.halves and self.pyramid:
                x = image = next(pyramid)(x, image)
            skips.append(x)
        for block in self.middle:
            x = block(x, embedding)
        for block, takes_skip in zip(self.decoder, self.takes_skip):
            x = block(torch.cat([x, skips.pop()], dim=1) if takes_skip else x, embedding)
        return self.head(functional.silu(self.head_norm(x)))
