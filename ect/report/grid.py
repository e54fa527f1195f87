"""Samples, model by model: the images of a column come from the same noise."""

import numpy as np

from ect.data import npz
from ect.data.file import read
from ect.report import style

PIXELS = 64  # each image is enlarged to about this size before it is placed


def plot_grid(rows, out, width_in, columns, data=None):
    """`rows` is [[label, samples.npz], ...]; each shows its first `columns` images. `data` is a
    dataset file, whose training images make a first row."""
    strips = [(label, _first(path, _samples(path, columns), columns)) for label, path in rows]
    if data is not None:
        strips.insert(0, ("data", _first(data, read(data, "train")[0], columns)))
    cell = (width_in - 1.1) / columns
    with style.figure(out, width_in, cell * 1.04 * len(strips), len(strips), 1) as (figure, axes):
        figure.get_layout_engine().set(h_pad=0.01, w_pad=0.02, hspace=0, wspace=0)
        for axis, (label, images) in zip(axes[:, 0], strips):
            axis.imshow(strip(images), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.set_ylabel(style.label(label), rotation=0, ha="right", va="center", fontsize=7)


def strip(images):
    """(N, H, W, C) uint8 side by side with white between: (H', W') grey or (H', W', 3)."""
    factor = max(1, PIXELS // images.shape[1])
    large = images.repeat(factor, axis=1).repeat(factor, axis=2)
    gap = max(1, large.shape[1] // 20)
    padded = np.pad(large, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    row = np.concatenate(padded, axis=1)[:-gap, :-gap]
    return row[..., 0] if row.shape[-1] == 1 else row


def _samples(path, columns):
    """The first images; the file is read to its end, where its checksum is compared."""
    batches = npz.read(path)
    first = next(batches)
    while len(first) < columns and (more := next(batches, None)) is not None:
        first = np.concatenate([first, more])
    for _ in batches:
        continue
    return first[:columns]


def _first(path, images, columns):
    if len(images) < columns:
        found = f"found {len(images)} images for a grid of {columns} columns"
        raise ValueError(f"{path}: {found}; allowed: an image for each, or fewer columns")
    return images[:columns]
