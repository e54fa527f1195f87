"""How wide the layers of a U-Net are, from its block of the config. Loads no torch."""

from typing import NamedTuple


def widths(network):
    """The widths of the inputs and outputs of the blocks of `ect/networks/unet.py`. The input
    of a decoder block is the block before it, joined with a skip connection."""
    levels = [network.channels * m for m in network.multipliers]
    skips = [levels[0] if network.architecture == "adm" else network.channels]
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
    """The widths of ADM's attention layers for images of `side` pixels: on the levels that
    `attention` lists and in the middle; in the middle alone if the side is unknown (None)."""
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
    block of a level that `attention` lists, the last decoder block (with ADM every one), and the
    middle; with ADM only where a layer has 64 channels or more."""
    adm, found = network.architecture == "adm", []
    for n, multiplier in enumerate(network.multipliers):
        width = network.channels * multiplier
        layers = 0
        if side >> n in network.attention:
            layers = network.blocks + (network.blocks + 1 if adm else 1)
        layers += n == len(network.multipliers) - 1
        found.append(Level(side >> n, width, 0 if adm and width < 64 else layers))
    return found
