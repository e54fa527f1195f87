"""The images of a samples.npz, ours or made elsewhere, read a batch at a time.

It holds an array `arr_0`, uint8 (N, H, W, C) with C of 1 or 3, the format of OpenAI's evaluator;
other arrays in it, such as its labels, are not read. The array's header is that of numpy's formats
1.0 to 3.0, in C or Fortran order. It is checked before the content is read, and nothing is ever
unpickled.
"""

import math
import zipfile

import numpy as np
from numpy.lib import format as npy

from ect.config.dataset import MAX_BYTES, MAX_PIXELS
from ect.runtime.text import allowing, shown
from ect.runtime.zips import locked

ARRAY = "arr_0.npy"


def read(path, size=500):
    """The images of a samples.npz in order, in batches (n, H, W, C) of `size`, or fewer if they are
    large; raises `ValueError` if the file is not one, `OSError` if it cannot be read."""
    try:
        with zipfile.ZipFile(path) as file, file.open(_entry(file)) as array:
            shape, fortran = _header(array, file.getinfo(ARRAY).file_size)
            yield from (_in_fortran_order if fortran else _in_c_order)(array, shape, size)
    except OSError as error:
        raise OSError(f"{path}: cannot be read ({error.strerror or error})") from None
    except MemoryError:
        raise
    except Exception as error:  # zipfile and the decompressors raise almost any for a damaged file
        reason = error.args[0] if isinstance(error, KeyError) else error
        found = f"{path}: not a readable samples.npz ({shown(reason, 300)})"
        raise ValueError(allowing(found, "what `sample` writes")) from None


def _entry(file):
    names = file.namelist()
    if names.count(ARRAY) != 1:
        found = ", ".join(name.removesuffix(".npy") for name in names) or "nothing"
        raise ValueError(f"holds {shown(found)}; allowed: an array arr_0, once")
    if locked(file, ARRAY.__eq__):
        raise ValueError("found an encrypted zip; allowed: one without a password")
    return ARRAY


def _header(array, length):
    """(shape, whether in Fortran order) of the array, whose entry has `length` bytes."""
    version = npy.read_magic(array)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"numpy's format {version}; allowed: 1.0 to 3.0")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read_header(array)  # 3.0 is 2.0 with other names of fields
    if dtype != np.uint8:
        raise ValueError(f"arr_0 is {dtype.name}; allowed: uint8, from 0 for black to 255")
    if len(shape) != 4 or min(shape) < 1 or shape[3] not in (1, 3):
        hint = "; this looks like (N, C, H, W)" if len(shape) == 4 and shape[1] in (1, 3) else ""
        raise ValueError(
            f"arr_0 has the shape {shape}; allowed: (N, H, W, C) with C of 1 or 3{hint}"
        )
    if shape[1] * shape[2] > MAX_PIXELS:
        raise ValueError(f"images of {shape[2]}x{shape[1]}; allowed: up to {MAX_PIXELS:,} pixels")
    if (held := length - array.tell()) != math.prod(shape):
        raise ValueError(f"arr_0 holds {held:,} bytes; its shape {shape} has {math.prod(shape):,}")
    return shape, fortran


def _in_c_order(array, shape, size):
    step = max(1, min(size, MAX_BYTES // math.prod(shape[1:])))
    for start in range(0, shape[0], step):
        part = (min(step, shape[0] - start), *shape[1:])
        yield np.frombuffer(bytearray(array.read(math.prod(part))), np.uint8).reshape(part)


def _in_fortran_order(array, shape, size):
    """Every image is spread over the whole array, so all of it is read."""
    images = np.frombuffer(array.read(), np.uint8).reshape(shape, order="F")
    for start in range(0, shape[0], size):
        yield np.array(images[start : start + size], order="C")
