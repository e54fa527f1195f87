"""What distinguishes DDPM++, NCSN++ and ADM: how their layers begin, and how they are joined."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

SKIP_SCALE = math.sqrt(0.5)  # keeps the variance of (branch + skip) at that of its parts


def xavier_init(layer, gain=1.0):
    """Xavier-uniform weights times `gain`, zero bias."""
    nn.init.xavier_uniform_(layer.weight)
    layer.weight.data.mul_(gain)
    nn.init.zeros_(layer.bias)
    return layer


def small_init(layer):
    return xavier_init(layer, 1e-5)


def default_init(layer, gain=1.0):
    """The layer as torch draws it, U(-1, 1) / sqrt(fan in), as in ADM."""
    return layer


def zero_init(layer):
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


@dataclass(frozen=True)
class Style:
    """What distinguishes the three architectures."""

    init: Callable = xavier_init  # weights of a new layer
    init_last: Callable = small_init  # and of the last layer of a branch
    init_labels: Callable = nn.init.xavier_uniform_  # of what reads augmentation
    eps: float = 1e-6  # of the group norms
    skip_scale: float = SKIP_SCALE
    taps: tuple = (1, 1)  # the filter that resamples
    waves: int = 1  # width of the noise level's sinusoids, in units of the channels
    pyramid: bool = False  # the halved input joins the encoder on every level
    adm: bool = False  # the embedding scales too, heads of 64 channels, labels after the MLP

    def norm(self, channels):
        return nn.GroupNorm(min(32, channels // 4), channels, eps=self.eps)

    def heads(self, channels):
        """Heads of attention; none where ADM has fewer than 64 channels, as in EDM."""
        return channels // 64 if self.adm else 1


STYLES = {
    "ddpmpp": Style(),
    "ncsnpp": Style(taps=(1, 3, 3, 1), waves=2, pyramid=True),
    "adm": Style(default_init, zero_init, nn.init.zeros_, eps=1e-5, skip_scale=1.0, adm=True),
}
