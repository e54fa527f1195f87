"""The job: how near drawn images lie to training images, beside how near held-out ones do.

A model that copies its training images has many at distances that held-out images do not have.
Its Frechet distance to the training images is then below that to the held-out ones, by more than
real images' are apart; both are measured with equal numbers of images.
"""

import numpy as np
import torch

from ect.data import npz
from ect.data.batches import Images
from ect.evaluation import features, metrics, samples
from ect.evaluation.evaluate import space_of
from ect.runtime import checkpoint
from ect.runtime.seeds import seed_of

BLOCK = 2**25  # numbers of a block of distances, and of a block of training images


def run(settings, drawn, data, reference, out, classifier=None):
    """Write, for `generated` images, those of the samples.npz `drawn`, and for as many `held_out`
    ones, in the spaces `pixels` and `features`: the row of the nearest training image (n,) and the
    distance to it (n,); and `held_out.rows` (n,), which held-out images these are.

    A distance of pixels is the root of the mean square, black to white being 1; of features it is
    Euclidean. In the file's metadata `fd` holds the Frechet distances of n images each, {what:
    {to what: value}}: of the generated to the training and to the held-out images, of the held-out
    to the training images and the other way round, each time to as many images, `against`.
    """
    images, test = Images(data), Images(data, "test")
    made = np.concatenate(list(npz.read(drawn)))
    name, extract, real = space_of(reference, settings["features"], images.shape, classifier)
    height, width, depth = made.shape[1:]
    features.require_shape(drawn, (depth, height, width), images.shape, data)
    if len(real) != len(images.pixels):
        raise ValueError(
            f"{reference}: features of {len(real)} images; allowed: of the {len(images.pixels)}"
            f" training images of {data}"
        )
    rows = spread(len(test.pixels), min(len(made), len(test.pixels)))
    count, held_out = len(rows), features.of_images(extract, test.pixels)
    sets = {
        "generated": (made[:count], features.of_images(extract, made[:count])),
        "held_out": (test.pixels[rows], held_out[rows]),
    }
    tensors = {"held_out.rows": rows}
    for key, (pixels, found) in sets.items():
        features.require_width(drawn, found, real, reference)
        spaces = {"pixels": in_pixels(pixels, images.pixels), "features": nearest(found, real)}
        for space, (row, distance) in spaces.items():
            tensors |= {f"{key}.{space}.row": row, f"{key}.{space}.distance": distance}
    fd, against = distances(sets["generated"][1], sets["held_out"][1], held_out, real)
    tensors = {key: torch.from_numpy(value) for key, value in tensors.items()}
    checkpoint.save(out, tensors, features=name, fd=fd, against=against)


def spread(size, count):
    """`count` of the rows 0 to `size` - 1 at equal steps, so that images sorted by class are all
    of the classes."""
    return np.arange(count) * size // count


def distances(generated, chosen, held_out, real):
    """({what: {to what: Frechet distance}}, number of images that each is a distance to) of
    features: n `generated`, n `chosen` of the M `held_out`, and all training images `real`."""
    against = min(len(held_out), len(real))
    order = np.random.default_rng(seed_of("nearest")).permutation(len(real))
    training = metrics.Reference(real[order[:against]])
    testing = metrics.Reference(held_out[spread(len(held_out), against)])
    pairs = {
        "generated": {"training": (generated, training), "held_out": (generated, testing)},
        "held_out": {"training": (chosen, training)},
        "training": {"held_out": (real[order[: len(chosen)]], testing)},
    }
    return {
        what: {to: metrics.measures(["fd"], *pair, None)["fd"] for to, pair in row.items()}
        for what, row in pairs.items()
    }, against


def in_pixels(images, training):
    """`nearest` of uint8 images (n, H, W, C) among others (N, H, W, C), read a piece at a time;
    the root of the mean square of their difference, black to white being 1."""
    size = images[0].size
    points, start = _flat(images), 0
    row, least = np.zeros(len(points), np.int64), np.full(len(points), np.inf)
    for piece in samples.pieces(training, max(1, BLOCK // size)):
        found, distance = nearest(points, _flat(piece))
        row = np.where(distance < least, start + found, row)
        least, start = np.minimum(distance, least), start + len(piece)
    return row, least / (255 * np.sqrt(size))


def _flat(pixels):
    return pixels.reshape(len(pixels), -1).astype(np.float64)


def nearest(points, others):
    """(row (n,), distance (n,)) of the nearest of `others` (N, D) for each of `points` (n, D),
    float64; of equally near ones the first. The distance is that of the difference itself; only
    the search expands its square, whose rounding could choose among all but equally near ones."""
    if not len(others):
        raise ValueError("found no images to search; allowed: at least one")
    squares, rows = np.einsum("nd,nd->n", others, others), []
    step = max(1, BLOCK // len(others))
    for start in range(0, len(points), step):
        rows.append((squares - 2 * points[start : start + step] @ others.T).argmin(axis=1))
    found = np.concatenate(rows)
    return found, np.linalg.norm(points - others[found], axis=1)
