"""One image file -> uint8 pixels (H, W, C), for files from cameras, scanners and the web.

- An EXIF orientation is applied. Of an animation or a document the first frame or page is read.
- Transparent pixels become white. Palettes, CMYK and grey become RGB; with `channels: 1` every
  image becomes luma (ITU-R 601).
- Of 16-bit grey values the upper 8 bits are kept (>> 8).
- With a resolution: the largest square in the centre, then Lanczos to resolution x resolution, up
  or down. That is EDM's `center-crop`, also with Pillow's Lanczos.
"""

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


class PictureError(ValueError):
    """A file that cannot be read as an image: damaged, or of an unknown format."""


def read(file, channels, resolution=None):
    """uint8 (H, W, C) of an open file or a path; raises `PictureError` with the reason."""
    try:
        with Image.open(file) as image:
            return pixels_of(image, channels, resolution)
    except UnidentifiedImageError:
        raise PictureError("not an image of a kind that can be read") from None
    except Exception as error:  # Pillow raises almost any error for a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(reason) from None


def pixels_of(image, channels, resolution=None):
    """uint8 (H, W, C) of a Pillow image."""
    plain = _on_white(_of_8_bits(ImageOps.exif_transpose(image)))
    plain = plain.convert("L" if channels == 1 else "RGB")
    if resolution is not None:
        plain = _fitted(plain, resolution)
    pixels = np.asarray(plain)
    return pixels[..., None] if channels == 1 else pixels


def _of_8_bits(image):
    if image.mode == "F":
        raise PictureError("its pixels are floating-point; allowed: 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)  # of either byte order
    if values.min() < 0 or values.max() >= 2**16:
        raise PictureError("its pixels have more than 16 bits; allowed: 8 or 16 bits")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _on_white(image):
    if not image.has_transparency_data:
        return image
    clear = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)


def _fitted(image, resolution):
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square.resize((resolution, resolution), Image.Resampling.LANCZOS)
