"""Images under affine maps: the filter, its laws, and maps against plain loops."""

import numpy as np
import pytest
import torch

from ect.training import augment
from ect.training.warp import EDGE, SYM6, doubled, halved, mirrored, warp


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(64, 3, 8, 8))).float()


def smooth(side, length=24):
    """A function on pixels about the centre, and its image (1, 1, side, side)."""

    def f(x, y):
        return np.sin(x / length) + 0.5 * np.cos((1.4 * y + 0.6 * x) / length)

    line = np.arange(side) - (side - 1) / 2
    return f, torch.from_numpy(f(line[None], line[:, None])).float()[None, None]


def spectral():
    """A symlet's low-pass: a spectral factor of the halfband filter of Daubechies with six zeros at
    -1, of the 16 the one whose phase is nearest to linear."""
    n = 6
    inner = np.zeros(2 * n - 1)  # P(y) with y = (2 - z - 1/z) / 4, times z^(n - 1)
    coefficient, power = 1.0, np.ones(1)
    for k in range(n):
        size = (2 * n - 1 - len(power)) // 2
        inner += coefficient * np.pad(power, size)
        coefficient, power = coefficient * (n + k) / (k + 1), np.convolve(power, [-1, 2, -1]) / 4
    inside = [root for root in np.roots(inner) if abs(root) < 1]
    groups = {}
    for root in inside:
        groups.setdefault((round(root.real, 6), round(abs(root.imag), 6)), []).append(root)
    found = []
    for choice in range(2 ** len(groups)):
        roots = [-1.0] * n
        for bit, group in enumerate(groups.values()):
            roots += [1 / root if choice >> bit & 1 else root for root in group]
        taps = np.real(np.poly(roots))
        found.append(taps * np.sqrt(2) / taps.sum())
    return min(found, key=_bend)


def _bend(taps):
    """How far a filter's phase is from a straight line."""
    w = np.linspace(0.05, 0.75 * np.pi, 200)
    phase = np.unwrap(np.angle(np.exp(-1j * np.outer(w, np.arange(12))) @ taps))
    return min(np.abs(phase + slope * w).max() for slope in np.linspace(4, 7, 301))


def test_the_filter_is_the_symlet_of_daubechies():
    found = spectral()
    near = min(np.abs(found - SYM6).max(), np.abs(found[::-1] - SYM6).max())
    assert near < 1e-9


def test_the_filter_is_orthogonal_to_its_shifts_and_has_six_vanishing_moments():
    h = np.array(SYM6)
    for shift in range(6):
        assert h[2 * shift :] @ h[: 12 - 2 * shift] == pytest.approx(float(shift == 0), abs=1e-11)
    k, signs = np.arange(12), (-1.0) ** np.arange(12)
    assert h.sum() == pytest.approx(np.sqrt(2), abs=1e-12)
    for moment in range(6):
        assert abs((signs * k**moment * h).sum()) < 1e-6 * 12**moment


def test_doubling_and_halving_gives_the_image_back(images):
    large = mirrored(images, 2).double()
    assert large.shape[2] == 22
    torch.testing.assert_close(
        halved(doubled(large, 2), 2), large[:, :, EDGE:-EDGE], rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_outside_an_image_is_its_mirror_image(side):
    x = torch.arange(float(side))[None, None, None]
    wanted = np.pad(np.arange(side), side - 1, mode="reflect" if side > 1 else "edge")
    assert mirrored(x, 3)[0, 0, 0].tolist() == wanted.tolist()


def by_hand(x, inverse):
    """The same as `warp` in plain numpy loops, of one channel: EDM's steps one after the other."""
    side, h = len(x), np.array(SYM6)
    large = np.pad(x, side - 1, mode="reflect")

    def up(rows):  # zeros between the numbers, then a convolution; number i begins at 2 i - 5
        out = np.zeros((len(rows), 2 * rows.shape[1] + 12))
        for i in range(rows.shape[1]):
            out[:, 2 * i : 2 * i + 12] += rows[:, i, None] * h
        return out[:, 5 : 5 + 2 * rows.shape[1]]

    large = up(up(large).T).T
    shown = np.zeros((2 * (side + 6), 2 * (side + 6)))
    for i, j in np.ndindex(*shown.shape):
        place = [n / 2 - 3 - (side - 1) / 2 for n in (j, i)]
        u, v = (2 * (q + (side - 1) / 2 + side - 1) for q in inverse @ [*place, 1])
        a, b = int(np.floor(u)), int(np.floor(v))
        for row, column in np.ndindex(2, 2):
            weight = (1 - abs(v - b - row)) * (1 - abs(u - a - column))
            if 0 <= b + row < len(large) and 0 <= a + column < len(large):
                shown[i, j] += weight * large[b + row, a + column]

    def down(rows):
        size = rows.shape[1] // 2 - 6
        return np.stack([rows[:, 2 * i + 1 : 2 * i + 13] @ h for i in range(size)], axis=1)

    return down(down(shown).T).T


def test_a_warp_is_that_of_plain_loops(images):
    plan = augment.drawn("edm", 1.0, 3, 0, 4, (1, 8, 8))
    found = warp(images[:4], torch.from_numpy(plan.inverse).float())
    for x, inverse, y in zip(images.double().numpy(), plan.inverse, found):
        for channel in range(3):
            np.testing.assert_allclose(y[channel], by_hand(x[channel], inverse), atol=3e-5)


# EDM takes the filter's centre, 5.1, for its tap 5: both filters are late by this many pixels.
LATE = (np.dot(np.arange(12), SYM6) / np.sqrt(2) - 5) / 2


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turn_by_a_right_angle_is_rot90_inside(turns):
    _, x = smooth(32, length=150)
    inverse = torch.from_numpy(augment.turned(np.array([turns * np.pi / 2])))[:, :2].float()
    turned, wanted = warp(x, inverse), torch.rot90(x, turns, (2, 3))
    inside = slice(8, -8)
    assert (wanted - x)[..., inside, inside].abs().max() > 0.05
    assert (turned - wanted)[..., inside, inside].abs().max() < 1e-3


def test_an_affine_map_of_a_smooth_image_is_the_function_at_the_mapped_places():
    f, x = smooth(32)
    plan = augment.drawn("edm", 1.0, 5, 0, 32, (1, 32, 32))
    found = warp(x.expand(32, -1, -1, -1), torch.from_numpy(plan.inverse).float())
    across, along = np.meshgrid(np.arange(32) - 15.5, np.arange(32) - 15.5)
    assert 0 < LATE < 0.05
    for inverse, y in zip(plan.inverse, found):
        places = np.stack([across + LATE, along + LATE, np.ones_like(along)])
        u, v = np.tensordot(inverse, places, axes=1) - LATE
        seen = (np.abs(u) < 12) & (np.abs(v) < 12)
        assert seen.sum() > 50
        assert np.abs(y[0].numpy() - f(u, v))[seen].max() < 1e-3
