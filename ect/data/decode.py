"""One image file -> uint8 pixels (H, W, C), for files from cameras, scanners and the web.

- Only the formats of `FORMATS` are opened: some others are programs (EPS) or start one.
- Image and file are bounded (`MAX_PIXELS`, `MAX_BYTES`) before anything is decoded, and so is what
  all threads decode at a time.
- An EXIF orientation is applied. Of an animation or a document the first frame or page is read.
- Transparent pixels become white. Palettes, CMYK and grey become RGB; with `channels: 1` every
  image becomes luma (ITU-R 601).
- Of 16-bit values the upper 8 bits are kept (>> 8).
- With a resolution: the largest square in the centre, then Lanczos to resolution x resolution, up
  or down. That is EDM's `center-crop`, also with Pillow's Lanczos. Or `dhariwal`, EDM2's
  `center-crop-dhariwal`: 2x2 means, bicubic, then the square.
"""

import errno
import threading
from contextlib import contextmanager, suppress

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from ect.config.dataset import FORMATS, MAX_BYTES, MAX_PIXELS
from ect.runtime.crash import short_of_memory
from ect.runtime.text import shown

# Errors of the system that come from a file's name (a link to nothing or to itself), or from an
# offset in an archive.
OF_THE_FILE = (
    errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL,
)  # fmt: skip
# How files begin that are often named as images, beside those that Pillow knows.
BEGINNINGS = {
    b"%PDF": "PDF",
    b"PK\x03\x04": "a .zip",
    b"\x1f\x8b": "gzip",
    b"version https://git-lfs": "a pointer of Git LFS, whose file was not fetched",
    b"<": "a text with tags, as SVG or a web page",
}


class PictureError(ValueError):
    """A file that cannot be read as an image: damaged, too large, or of another format."""


class MachineError(OSError):
    """The machine could not read a file (memory, disk, permission); the image may be intact."""


class Room:
    """So many pixels that may be decoded at a time, by all threads together."""

    def __init__(self, pixels):
        self.free, self.changed = pixels, threading.Condition()

    @contextmanager
    def of(self, pixels):
        """Wait until there is room for so many pixels, and keep it for the block."""
        with self.changed:
            self.changed.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.free += pixels
                self.changed.notify_all()


ROOM = Room(2 * MAX_PIXELS)  # at up to about 20 bytes each


@contextmanager
def faults():
    """Name whose fault an error of the block is: `PictureError` with the reason, that of the file,
    or `MachineError`."""
    try:
        yield
    except (PictureError, MachineError):
        raise
    except Exception as error:  # Pillow and zipfile raise almost any error for a damaged file
        reason = shown(" ".join(str(error).split()) or type(error).__name__)
        raise (MachineError if _is_of_the_machine(error) else PictureError)(reason) from None


def _is_of_the_machine(error):
    """Pillow's and zipfile's errors about a file's content have no errno."""
    system = isinstance(error, OSError) and error.errno is not None
    missing = isinstance(error, OSError) and str(error).endswith("not available")  # a decoder
    return short_of_memory(error) or missing or (system and error.errno not in OF_THE_FILE)


def read(file, channels, resolution=None, resize="lanczos"):
    """uint8 (H, W, C) of an open file; raises `PictureError` or `MachineError`."""
    with faults(), _opened(file) as image, ROOM.of(_pixels_in(image)):
        return pixels_of(image, channels, resolution, resize)


def size(file):
    """(width, height) of the image in an open file, whose header alone is read; raises
    `PictureError` or `MachineError`."""
    with faults(), _opened(file) as image:
        _pixels_in(image)
        return image.size


def _opened(file):
    held = file.seek(0, 2)
    if held > MAX_BYTES:
        raise PictureError(f"holds {held:,} bytes; allowed: up to {MAX_BYTES:,}")
    file.seek(0)
    try:
        return Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError:
        raise PictureError(f"has too many pixels; allowed: up to {MAX_PIXELS:,}") from None
    except UnidentifiedImageError:
        file.seek(0)
        kind = _kind(file.read(64))
    if kind in ("AVIF", "WEBP") and not features.check(kind.lower()):
        raise MachineError(f"Pillow was built without {kind}")
    if kind is None or kind in FORMATS:
        raise PictureError("not an image of a kind that can be read")
    raise PictureError(f"its content is {kind}; allowed: {', '.join(FORMATS)}")


def _kind(start):
    """What a file is by its first bytes; None if that is not known. Nothing is opened."""
    Image.init()
    for name, (_, accepts) in Image.OPEN.items():
        with suppress(Exception):  # of too few bytes
            if accepts is not None and accepts(start):
                return name
    return next((kind for first, kind in BEGINNINGS.items() if start.startswith(first)), None)


def _pixels_in(image):
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PictureError(f"has {width}x{height} pixels; allowed: up to {MAX_PIXELS:,}")
    return width * height


def pixels_of(image, channels, resolution=None, resize="lanczos"):
    """uint8 (H, W, C) of a Pillow image, which it may change; raises `PictureError`."""
    stored = _stored(image)
    ImageOps.exif_transpose(image, in_place=True)
    plain = _on_white(_of_8_bits(image, stored))
    plain = plain.convert("L" if channels == 1 else "RGB")
    if resolution is not None:
        plain = RESIZES[resize](plain, resolution)
    pixels = np.asarray(plain)
    return pixels[..., None] if channels == 1 else pixels


def _stored(image):
    """How the file holds its pixels, in Pillow's words (`I;16B`); known until they are loaded."""
    tiles = getattr(image, "tile", None) or [("", None, 0, "")]
    name, _, _, form = tiles[0]
    if name == "ppm" and form[1] > 255:
        return "RGB;16"
    return form if isinstance(form, str) else str(form[0])


def _of_8_bits(image, stored):
    """An image of 8 bits, of one of 16. Values that are all below 256 are those of 8 bits in a file
    of 16 or 32, whose upper bytes are black."""
    if image.mode == "F":
        raise PictureError("its pixels are floating-point; allowed: 8 or 16 bits")
    if stored.endswith(";12"):
        raise PictureError("its pixels have 12 bits; allowed: 8 or 16 bits")
    black = "its pixels are of more than 8 bits, with values below 256 only; allowed: 8 bits for"
    if not image.mode.startswith("I"):
        if ";16" in stored and np.max(image.getextrema()) <= 1:  # Pillow kept the upper bytes
            raise PictureError(f"{black} such values")
        return image
    values = np.asarray(image)  # of either byte order
    if values.min() < 0 or values.max() >= 2**16:
        raise PictureError("its pixels have more than 16 bits; allowed: 8 or 16 bits")
    if 0 < values.max() < 256:
        raise PictureError(f"{black} such values")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _on_white(image):
    if not image.has_transparency_data:
        return image
    clear = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)


def _lanczos(image, resolution):
    square = _central(image, min(image.size))
    return square.resize((resolution, resolution), Image.Resampling.LANCZOS)


def _dhariwal(image, resolution):
    """Halved by means of 2x2 pixels while its shorter side is twice the resolution or more; then
    that side is resized to it; then the square is cut out (Dhariwal and Nichol 2021)."""
    while min(image.size) >= 2 * resolution:
        width, height = image.size
        image = image.resize((width // 2, height // 2), Image.Resampling.BOX)
    scale = resolution / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    return _central(image.resize((width, height), Image.Resampling.BICUBIC), resolution)


def _central(image, side):
    """The square of `side` pixels in the centre of an image."""
    left, top = ((length - side) // 2 for length in image.size)
    return image.crop((left, top, left + side, top + side))


RESIZES = {"lanczos": _lanczos, "dhariwal": _dhariwal}
