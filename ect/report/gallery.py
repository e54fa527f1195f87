"""Samples of every model on the page: small strips that a browser draws once they are unfolded.

They are found beside the records of the jobs that drew them, and stay as small as they are: the
page enlarges them. The model that was compared with the training images has the nearest ones below.
"""

import base64
import io
import math
import os
from pathlib import Path

import numpy as np
from PIL import Image

from ect.data import npz
from ect.data.file import read
from ect.report import nearest

COLUMNS = 10  # images of a strip, fewer where all strips would not fit
ROOM = 2_000_000  # bytes of all strips together, as far as one image of each allows


def gallery(runs, out):
    """[(model, [(sampler, strip, the same of nearest training images, or None)])] of run.json files
    with a samples.npz beside them, in their order; strips are data URIs, names are folders below
    that of `out`. Of several repeats the first is shown. Raises `ValueError` or `OSError` for a
    damaged file."""
    drawn = [Path(run).with_name("samples.npz") for run in runs]
    drawn = [path for path in drawn if path.is_file() and not path.parent.name.startswith("repeat")]
    data = next(
        (p for run in runs if (p := Path(run).with_name("dataset.safetensors")).is_file()), None
    )
    models: dict[str, list] = {}
    columns = None
    for path in drawn:
        images = next(npz.read(path, COLUMNS))
        columns = columns or _columns(images, len(drawn))
        folder = Path(os.path.relpath(path.parent, Path(out).parent))
        strips = (strip(images[:columns]), _nearest(path, data, columns))
        models.setdefault(str(folder.parent), []).append((folder.name, *strips))
    return list(models.items())


def _columns(images, count):
    """The number of images of a strip; a PNG of noise in base64 is 4/3 as large as its pixels."""
    each = math.prod(images.shape[1:]) * 4 / 3 * count
    return max(1, min(COLUMNS, len(images), int(ROOM / each)))


def _nearest(samples, data, columns):
    """The training images nearest in pixels to the first samples; None where nobody looked."""
    path = samples.with_name("nearest.safetensors")
    if data is None or not path.is_file():
        return None
    rows = nearest.load(path)[0]["generated.pixels.row"][:columns]
    return strip(read(data, "train")[0][list(rows)])


def strip(images):
    """Images, uint8 (N, H, W, C), side by side as the data URI of a PNG."""
    row = np.concatenate(list(images), axis=1)
    file = io.BytesIO()
    Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
