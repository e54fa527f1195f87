"""Images under affine maps, as EDM's augmentation resamples them: doubled in size by a wavelet's
low-pass, interpolated there, and halved by the same filter turned round.

Doubling and halving alone give the image back: SYM6 is orthogonal to its own shifts by two. What
lies outside an image is its mirror image. Each image is computed on its own, number by number, so
its bits do not depend on the others of a batch.
"""

import torch
from torch.nn import functional

# The low-pass of the symlet with six vanishing moments, twelve numbers of sum sqrt(2): Daubechies,
# Ten Lectures on Wavelets (1992), table 6.3, "least asymmetric, N = 6".
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
EDGE = len(SYM6) // 4  # pixels around an image that the last filter reads


def warp(x, inverse):
    """Images x (B, C, H, W), float32, moved: the pixel at p shows what was at inverse p, for
    `inverse` (B, 2, 3), float64, on (x to the right, y down, 1) in pixels about the centre."""
    *_, height, width = x.shape
    large = doubled(doubled(mirrored(mirrored(x, 2), 3), 2), 3)
    right, down = (_lattice(side).to(x.device) for side in (width, height))
    a, b, c, d, e, f = inverse.flatten(1).to(x).t()[:, :, None, None]
    across = a * right + b * down[:, None] + c
    along = d * right + e * down[:, None] + f
    places = [_placed(q, side) for q, side in ((across, width), (along, height))]
    moved = functional.grid_sample(large, torch.stack(places, dim=-1), align_corners=True)
    return halved(halved(moved, 2), 3)


def _lattice(side):
    """Where the numbers of the result are before it is halved: from `EDGE` pixels before its first
    pixel, two for each, in pixels about the centre."""
    return torch.arange(2 * (side + 2 * EDGE)) / 2 - EDGE - (side - 1) / 2


def _placed(q, side):
    """The place of q, in pixels about the centre, in a doubled mirrored side: from -1, its first
    number, to 1, its last. A pixel is where its largest filter tap is."""
    last = 2 * (3 * side - 2) - 1
    return (2 * q + 3 * (side - 1)) * (2 / last) - 1


def mirrored(x, dim):
    """x continued by its mirror image on both sides, the edge not repeated: n -> 3 n - 2."""
    if (side := x.shape[dim]) == 1:
        return x
    place = torch.arange(1 - side, 2 * side - 1, device=x.device).abs()
    return x.index_select(dim, side - 1 - (side - 1 - place).abs())


def doubled(x, dim):
    """x with twice as many numbers along a dimension: each becomes twelve, SYM6 times it."""
    x, side = _padded(x, dim, 3), x.shape[dim]
    # Number i is at 2 i - 5 ... 2 i + 6. Even places read the odd taps, odd ones the even.
    even = [SYM6[2 * d + 5] * x.narrow(dim, 3 - d, side) for d in range(-2, 4)]
    odd = [SYM6[2 * d + 6] * x.narrow(dim, 3 - d, side) for d in range(-3, 3)]
    return torch.stack([sum(even), sum(odd)], dim=dim + 1).flatten(dim, dim + 1)


def halved(x, dim):
    """The transpose of `doubled`, less `EDGE` numbers on either side."""
    side = x.shape[dim] // 2 - 2 * EDGE
    parts = x.unflatten(dim, (-1, 2)).unbind(dim + 1)
    terms = []
    for tap, weight in enumerate(SYM6):
        step, odd = divmod(tap - 5 + 2 * EDGE, 2)
        terms.append(weight * parts[odd].narrow(dim, step, side))
    return sum(terms)


def _padded(x, dim, count):
    sides = [0, 0] * (x.ndim - 1 - dim) + [count, count]
    return functional.pad(x, sides)
