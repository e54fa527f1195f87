"""How wide the layers of a U-Net are, from its block of the config, where they attend, and where
dropout is. Loads no torch."""

from typing import NamedTuple

HEADS_OF_64 = ("adm", "edm2")  # heads of attention have 64 channels; narrower layers have none


def widths(network):
    """The widths of the inputs and outputs of the blocks of `ect/networks/unet.py`. The input
    of a decoder block is the block before it, joined with a skip connection."""
    levels = [network.channels * m for m in network.multipliers]
    skips = [levels[0] if network.architecture in HEADS_OF_64 else network.channels]
    for level, width in enumerate(levels):
        if level > 0:
            skips.append(skips[-1])
        skips += [width] * network.blocks
    result, last = {*skips}, skips[-1]
    for width in reversed(levels):
        for _ in range(network.blocks + 1):
            result.add(last + skips.pop())
            last = width
    return result


def attending(network, side):
    """The widths of the attention layers of ADM and EDM2 for images of `side` pixels: on the levels
    that `attention` lists and in the middle; in the middle alone if the side is unknown (None)."""
    levels = [network.channels * m for m in network.multipliers]
    named = (width for n, width in enumerate(levels) if side and side >> n in network.attention)
    return {*named, levels[-1]}


class Level(NamedTuple):
    """A level of a U-Net: pixels of a side, width, and its layers of self-attention."""

    side: int
    width: int
    layers: int


def levels(network, side):
    """The levels for images of `side` pixels, from the finest on. Attention follows every encoder
    block of a level that `attention` lists, the last decoder block (with ADM and EDM2 every one),
    and the middle; with these two only where a layer has 64 channels or more."""
    everywhere, found = network.architecture in HEADS_OF_64, []
    for n, multiplier in enumerate(network.multipliers):
        width = network.channels * multiplier
        layers = 0
        if side >> n in network.attention:
            layers = network.blocks + (network.blocks + 1 if everywhere else 1)
        layers += n == len(network.multipliers) - 1
        found.append(Level(side >> n, width, 0 if everywhere and width < 64 else layers))
    return found


def rates(dropout, dropout_at, sides):
    """The dropout probability on each level, given the pixels of their sides: `dropout` where these
    are at most `dropout_at`, or everywhere where that is None. Raises `ValueError` if no level has
    any."""
    if dropout and dropout_at is not None and dropout_at < min(sides):
        found = f"found {dropout_at} for levels of {', '.join(map(str, sides))} pixels"
        raise ValueError(f"dropout_at: {found}; allowed: {min(sides)} or more")
    return [dropout if dropout_at is None or side <= dropout_at else 0.0 for side in sides]
