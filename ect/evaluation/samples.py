"""Sets of drawn images: samples.npz, written a batch at a time, and PNG files.

samples.npz holds one array `arr_0`, uint8 (N, H, W, C), the format of OpenAI's evaluator; it is
read by `ect/data/npz.py`.
"""

import itertools
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from ect.data import npz
from ect.runtime.checkpoint import replacing, require_folder


def write(path, count, batches):
    """Write `count` images that come in batches (n, H, W, C), atomically. The bytes are those of
    numpy's `savez`; no more than one batch is in memory."""
    with (
        replacing(path) as scratch,
        zipfile.ZipFile(scratch, "w") as file,
        file.open(npz.ARRAY, "w", force_zip64=True) as array,
    ):
        for index, images in enumerate(batches):
            if index == 0:
                shape = (count, *images.shape[1:])
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                npy.write_array_header_1_0(array, header)
            array.write(images.tobytes())


def pieces(pixels, size=500):
    """Images (N, H, W, C), an array or the `Pixels` of a dataset file, in batches of `size`."""
    return (pixels[start : start + size] for start in range(0, len(pixels), size))


def shaped(batches):
    """((C, H, W) of the images, the same batches); None for the shape if there are no images."""
    batches = iter(batches)
    first = list(itertools.islice(batches, 1))
    if not first:
        return None, batches
    height, width, channels = first[0].shape[1:]
    return (channels, height, width), itertools.chain(first, batches)


def regrouped(batches, size):
    """The same images in batches of `size`, the last one smaller."""
    rest = np.empty(0)
    for images in batches:
        rest = np.concatenate([rest, images]) if len(rest) else images
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    if len(rest):
        yield rest


def export(path, folder):
    """Write the images of a samples.npz into a new or an empty folder: 000000.png, 000001.png, ...;
    all of them, or none if the file is damaged."""
    from PIL import Image

    require_folder(folder)
    out = Path(folder).resolve()  # which may be behind a link
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        part = Path(scratch) / "images"
        part.mkdir()
        images = (image for batch in npz.read(path) for image in batch)
        for index, image in enumerate(images):
            grey = image.shape[2] == 1
            Image.fromarray(image[..., 0] if grey else image).save(part / f"{index:06}.png")
        os.replace(part, out)
