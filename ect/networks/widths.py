"""How wide the layers of a U-Net are, from its block of the config. Loads no torch."""


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
