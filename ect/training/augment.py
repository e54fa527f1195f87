"""EDM's augmentation (Karras et al. 2022, appendix F.2): images are mirrored and moved at random,
and the network is told how, so that it draws none of it where it is told nothing.

What happens to image n of a run is a function of (seed, n): uniform numbers come from splitmix64 at
that place, as the masks of dropout do. Labels are zero exactly where the image is left as it is.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from ect.networks.dropout import GOLDEN, mixed
from ect.runtime import device
from ect.runtime.seeds import seed_of
from ect.runtime.versions import setting
from ect.training.warp import warp

STRETCH = 0.2  # standard deviation of the binary logarithm of a scale
SHIFT = 0.125  # standard deviation of a translation, in sides of the image
NUMBERS = 17  # uniform ones that belong to an image
TOLD = {"xflip": 1, "yflip": 1, "scale": 1, "rotate": 2, "aniso": 2, "translate": 2}  # labels
# Transforms in order, each with its probability as a multiple of p.
KINDS = {
    "edm": {"xflip": 1e8, "yflip": 1, "scale": 1, "rotate": 1, "aniso": 1, "translate": 1},
    "edm6": {"xflip": 1e8, "scale": 1, "aniso": 1, "translate": 1},
}

LABELS = {kind: sum(TOLD[name] for name in chances) for kind, chances in KINDS.items()}


class Drawn(NamedTuple):
    """What happens to B images: the labels (B, L); whether they are mirrored, left to right and top
    to bottom (B,); then whether they are moved (B,), and by which map (B, 2, 3) from a pixel to
    where it comes from, as `warp` takes it."""

    labels: np.ndarray
    across: np.ndarray
    down: np.ndarray
    moved: np.ndarray
    inverse: np.ndarray


class Numbers:
    """The uniform numbers in (0, 1) of images, taken in order, each an array (B,)."""

    def __init__(self, seed, first, count):
        n = np.arange(first + 1, first + count + 1, dtype=np.uint64)
        streams = mixed(np.array([seed], np.uint64)) + n * GOLDEN
        places = np.arange(1, NUMBERS + 1, dtype=np.uint64) * GOLDEN
        bits = mixed(mixed(streams)[:, None] + places) >> np.uint64(11)
        self.left = iter((bits.T + 0.5) * 2.0**-53)

    def uniform(self):
        return next(self.left)

    def angle(self):
        return (2 * self.uniform() - 1) * math.pi

    def normals(self):
        """Two normal numbers (Box and Muller 1958)."""
        radius, angle = np.sqrt(-2 * np.log(self.uniform())), self.angle()
        return radius * np.cos(angle), radius * np.sin(angle)


def drawn(kind, p, seed, first, count, shape):
    """The `Drawn` of images `first`, `first` + 1, ... of a seed's run; `shape` is (C, H, W)."""
    numbers, chances = Numbers(seed_of(seed, "augment"), first, count), KINDS[kind]
    labels, maps, moved = [], np.tile(np.eye(3), (count, 1, 1)), np.zeros(count, bool)
    flips = {}
    for name in KINDS["edm"]:  # each kind takes the same numbers
        on = numbers.uniform() < chances.get(name, 0) * p
        if name in ("xflip", "yflip"):
            told = flips[name] = on & (numbers.uniform() < 0.5)
            told = [told]
        else:
            step, told = TRANSFORMS[name](numbers, on, shape)
            maps, moved = maps @ step, moved | on
        labels += told if name in chances else []
    numbers_told = np.stack(labels, axis=1).astype(np.float32)
    return Drawn(numbers_told, flips["xflip"], flips["yflip"], moved, maps[:, :2])


def scale(numbers, on, shape):
    """Larger by 2^(0.2 w); the label is w."""
    w = np.where(on, numbers.normals()[0], 0)
    return diagonal(2 ** (-STRETCH * w), 2 ** (-STRETCH * w)), [w]


def rotate(numbers, on, shape):
    """Turned anticlockwise by w; the labels are cos w - 1 and sin w."""
    w = np.where(on, numbers.angle(), 0)
    return turned(w), [np.cos(w) - 1, np.sin(w)]


def aniso(numbers, on, shape):
    """Stretched by 2^(0.2 w) in the direction r, which half of the time is 0, and shrunk as much
    across it; the labels are w cos r and w sin r."""
    w = np.where(on, numbers.normals()[0], 0)
    r = numbers.angle()
    r = np.where(numbers.uniform() < 0.5, r, 0)
    step = turned(-r) @ diagonal(2 ** (-STRETCH * w), 2 ** (STRETCH * w)) @ turned(r)
    return step, [w * np.cos(r), w * np.sin(r)]


def translate(numbers, on, shape):
    """Moved by w times an eighth of the side, to the right and down; the labels are w."""
    _, height, width = shape
    pair = [np.where(on, normal, 0) for normal in numbers.normals()]
    step = np.tile(np.eye(3), (len(on), 1, 1))
    step[:, 0, 2], step[:, 1, 2] = -pair[0] * SHIFT * width, -pair[1] * SHIFT * height
    return step, pair


TRANSFORMS = {"scale": scale, "rotate": rotate, "aniso": aniso, "translate": translate}


def diagonal(across, down):
    """Maps (B, 3, 3) that multiply x and y."""
    step = np.tile(np.eye(3), (len(across), 1, 1))
    step[:, 0, 0], step[:, 1, 1] = across, down
    return step


def turned(angle):
    """Maps (B, 3, 3) from a pixel to where it was before a turn, anticlockwise as one looks at it
    (y points down)."""
    step = np.tile(np.eye(3), (len(angle), 1, 1))
    step[:, 0, 0] = step[:, 1, 1] = np.cos(angle)
    step[:, 1, 0] = np.sin(angle)
    step[:, 0, 1] = -step[:, 1, 0]
    return step


def applied(x, plan):
    """Images x (B, C, H, W) after what was drawn; those that nothing happens to keep their bits."""
    across, down = (device.to_device(torch.from_numpy(one), x.device) for one in plan[1:3])
    x = torch.where(across[:, None, None, None], x.flip(3), x)
    x = torch.where(down[:, None, None, None], x.flip(2), x)
    rows = np.flatnonzero(plan.moved)
    if len(rows) == 0:
        return x
    maps = torch.from_numpy(plan.inverse[rows]).to(torch.float32)
    rows, maps = (device.to_device(one, x.device) for one in (torch.from_numpy(rows), maps))
    return x.index_copy(0, rows, warp(x[rows], maps))


def require_labels(settings):
    """Raise `ValueError` unless the network of a run reads the labels of its augmentation."""
    options = setting(settings["recipe"], "augment")
    if options is None:
        return
    found, needed = setting(settings["network"], "augment_labels"), LABELS[options["kind"]]
    if found != needed:
        raise ValueError(
            f"augment is '{options['kind']}', which tells the network {needed} numbers of each"
            f" image, and this one reads {found}; allowed: a start with augment_labels: {needed}"
        )


def augmented(settings, first, x):
    """(x, labels) of images `first`, `first` + 1, ... of a run, on their device; labels None where
    the recipe has no augmentation."""
    options = setting(settings["recipe"], "augment")
    if options is None:
        return x, None
    plan = drawn(options["kind"], options["p"], settings["seed"], first, len(x), x.shape[1:])
    return applied(x, plan), device.to_device(torch.from_numpy(plan.labels), x.device)
