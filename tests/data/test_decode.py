"""Pixels of picture files: what an ordinary viewer would show, in 8 bits."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from ect.data.decode import PictureError, pixels_of, read

# How to store an upright picture so that this EXIF orientation shows it upright again.
STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: np.rot90(x.swapaxes(0, 1), 2),
    8: lambda x: np.rot90(x, -1),
}


def noise(height, width, channels=3, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height, width, channels), np.uint8)


def stored(image, kind="png", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return io.BytesIO(file.getvalue())


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))))
def test_a_png_keeps_its_pixels(pixels):
    channels = pixels.shape[2]
    image = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    assert np.array_equal(read(stored(image), channels), pixels)


@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_is_shown_upright(orientation):
    upright, exif = noise(5, 8), Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    assert np.array_equal(read(stored(image, exif=exif), 3), upright)


@pytest.mark.parametrize("kind, order", [("png", "<u2"), ("tiff", "<u2"), ("tiff", ">u2")])
def test_of_16_bits_the_upper_8_are_kept(kind, order):
    values = np.arange(0, 2**16, 37, dtype=order)[: 42 * 42].reshape(42, 42)
    image = Image.fromarray(values)
    assert np.array_equal(read(stored(image, kind), 1)[..., 0], values >> 8)
    assert np.array_equal(read(stored(image, kind), 3), np.repeat((values >> 8)[..., None], 3, 2))


def test_of_16_bits_of_a_colour_too():
    """A PNG made by hand, since Pillow cannot write one."""
    values = np.random.default_rng(0).integers(0, 2**16, (5, 4, 3)).astype(">u2")

    def part(name, content):
        ends = struct.pack(">I", len(content)), struct.pack(">I", zlib.crc32(name + content))
        return ends[0] + name + content + ends[1]

    head = part(b"IHDR", struct.pack(">IIBBBBB", 4, 5, 16, 2, 0, 0, 0))
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    png = b"\x89PNG\r\n\x1a\n" + head + part(b"IDAT", rows) + part(b"IEND", b"")
    assert np.array_equal(read(io.BytesIO(png), 3), values >> 8)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_deeper_pixels_are_refused(mode):
    image = Image.new(mode, (4, 4), 70_000)
    with pytest.raises(PictureError, match="allowed: 8 or 16 bits"):
        read(stored(image, "tiff"), 1)


@given(st.integers(0, 255), st.tuples(*[st.integers(0, 255)] * 3))
def test_the_transparent_part_is_white(alpha, colour):
    image = Image.new("RGBA", (2, 2), (*colour, alpha))
    shown = read(stored(image), 3).astype(float)
    wanted = (np.array(colour) * alpha + 255 * (255 - alpha)) / 255
    assert np.abs(shown - wanted).max() <= 1


def test_palettes_show_their_colours():
    colours = noise(4, 4)
    image = Image.fromarray(colours).quantize(16, dither=Image.Dither.NONE)
    exact = np.asarray(image.convert("RGB"))
    assert np.array_equal(read(stored(image), 3), exact)
    see_through = read(stored(image, transparency=image.getpixel((0, 0))), 3)
    assert np.array_equal(see_through[0, 0], [255] * 3)
    assert np.array_equal(see_through[exact != exact[0, 0]], exact[exact != exact[0, 0]])


def test_ink_darkens():
    inks = {(0, 0, 0, 0): 255, (0, 0, 0, 255): 0, (255, 255, 255, 0): 0}
    for ink, shown in inks.items():
        image = Image.new("CMYK", (8, 8), ink)
        assert (read(stored(image, "tiff"), 3) == shown).all()


def test_one_bit_is_black_and_white():
    bits = noise(6, 6, 1)[..., 0] > 127
    assert np.array_equal(read(stored(Image.fromarray(bits)), 1)[..., 0], 255 * bits)


def test_an_animation_gives_its_first_picture():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "lime")]
    for kind in ("gif", "png", "tiff"):
        file = stored(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.array_equal(read(file, 3), np.asarray(frames[0]))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 5))
def test_what_lies_outside_the_central_square_does_not_matter(width, height, seed):
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = noise(side, side, seed=seed)
    whole = noise(height, width, seed=seed + 1)
    whole[top : top + side, left : left + side] = square
    for resolution in (side, 7):
        found = pixels_of(Image.fromarray(whole), 3, resolution)
        assert np.array_equal(found, pixels_of(Image.fromarray(square), 3, resolution))
        assert found.shape == (resolution, resolution, 3)
    assert np.array_equal(pixels_of(Image.fromarray(whole), 3, side), square)


@given(st.integers(0, 255), st.integers(1, 20), st.integers(1, 20))
def test_resizing_keeps_a_constant(value, width, resolution):
    image = Image.new("RGB", (width, 9), (value,) * 3)
    assert (pixels_of(image, 3, resolution) == value).all()


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"])
def test_a_torn_file_is_an_error_at_every_length(kind):
    whole = stored(Image.fromarray(noise(16, 16)), kind).getvalue()
    for length in range(0, int(0.9 * len(whole)), 23):
        with pytest.raises(PictureError, match=r"\w"):
            read(io.BytesIO(whole[:length]), 3)
