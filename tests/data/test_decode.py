"""Pixels of picture files: what an ordinary viewer would show, in 8 bits."""

import errno
import io
import resource
import struct
import threading
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from ect.config.dataset import FORMATS
from ect.data import decode
from ect.data.decode import MachineError, PictureError, pixels_of, read

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


def part(name, content):
    """A chunk of a PNG."""
    ends = struct.pack(">I", len(content)), struct.pack(">I", zlib.crc32(name + content))
    return ends[0] + name + content + ends[1]


def png(depth, colour, width, height, rows, more=b""):
    """A PNG made by hand: of depths and sizes that Pillow does not write."""
    head = part(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + more + body


def deep_png(values):
    """A PNG of 16-bit RGB."""
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2"))
    return png(16, 2, values.shape[1], values.shape[0], rows)


def test_of_16_bits_of_a_colour_too():
    values = np.random.default_rng(0).integers(0, 2**16, (5, 4, 3))
    assert np.array_equal(read(io.BytesIO(deep_png(values)), 3), values >> 8)


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


def saved(values, kind):
    return stored(Image.fromarray(values), kind).getvalue()


LOW = np.arange(256).reshape(16, 16)  # values of 8 bits
DARK = "values below 256 only; allowed: 8 bits for such values"
BLACK = {
    "16-bit png": (saved(LOW.astype(np.uint16), "png"), DARK),
    "16-bit tiff": (saved(LOW.astype(">u2"), "tiff"), DARK),
    "32-bit tiff": (saved(LOW.astype(np.int32), "tiff"), DARK),
    "16-bit pgm": (b"P5 16 16 65535\n" + LOW.astype(">u2").tobytes(), DARK),
    "16-bit rgb png": (deep_png(np.stack([LOW] * 3, 2)), DARK),
    "16-bit rgb ppm": (b"P6 16 16 65535\n" + np.stack([LOW] * 3, 2).astype(">u2").tobytes(), DARK),
    "float tiff in 0..255": (saved(LOW.astype(np.float32), "tiff"), "floating-point"),
    "float tiff in 0..1": (saved((LOW / 255).astype(np.float32), "tiff"), "floating-point"),
    "negative": (saved(LOW.astype(np.int32) - 9, "tiff"), "allowed: 8 or 16 bits"),
}


@pytest.mark.parametrize("content, words", BLACK.values(), ids=BLACK)
def test_values_of_8_bits_in_a_deeper_file_do_not_become_black(content, words):
    for channels in (1, 3):
        with pytest.raises(PictureError, match=words) as caught:
            read(io.BytesIO(content), channels)
        assert len(str(caught.value).splitlines()) == 1


def test_a_black_image_of_16_bits_is_black():
    assert not read(io.BytesIO(saved(np.zeros((4, 4), np.uint16), "png")), 1).any()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
OTHERS = {
    "EPS": EPS,
    "PDF": b"%PDF-1.7\n",
    "ICO": stored(Image.fromarray(noise(16, 16)), "ico").getvalue(),
    "JPEG2000": stored(Image.fromarray(noise(16, 16)), "jpeg2000").getvalue(),
    "TGA": stored(Image.fromarray(noise(16, 16)), "tga").getvalue(),
    "PSD": b"8BPS\0\1" + bytes(40),
    "FITS": b"SIMPLE  =                    T" + bytes(90),
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(60),
    "PCX": stored(Image.fromarray(noise(16, 16)), "pcx").getvalue(),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "zip": b"PK\x03\x04" + bytes(40),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_only_the_formats_of_the_list_are_opened(kind, monkeypatch):
    """A file says by its content what it is; no other format's reader, which may start a program
    as that of EPS does, is called."""
    Image.init()
    for name in set(Image.OPEN) - set(FORMATS):
        monkeypatch.setitem(Image.OPEN, name, (pytest.fail, Image.OPEN[name][1]))
    with pytest.raises(PictureError) as caught:
        read(io.BytesIO(OTHERS[kind]), 3)
    said = str(caught.value)
    if kind != "TGA":  # has no mark at its beginning
        assert f"its content is {kind}" in said or (kind in said and "allowed: AVIF" in said)
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("kind", [name.lower() for name in FORMATS])
def test_every_format_of_the_list_is_read_whatever_its_name(kind):
    shown = read(stored(Image.new("RGB", (16, 16), "white"), kind), 3)
    assert shown.shape == (16, 16, 3) and shown.min() > 250


ZEROS = zlib.compress(bytes(2**24))
BOMBS = {
    "pixels": (png(1, 0, 12_000, 12_000, bytes(12_000 * 1501)), "has 12000x12000 pixels; allowed"),
    "more than Pillow opens": (png(1, 0, 2**30, 2**30, b""), "too many pixels; allowed"),
    "gif": (b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\0;", "pixels"),
    "bmp": (
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 0, 0, 54, 40, 2**15, 2**15, 1, 1, *[0] * 6),
        "pixels",
    ),
    "text": (png(8, 0, 2, 2, bytes(6), part(b"zTXt", b"a\0\0" + ZEROS)), "too large"),
    "profile": (png(8, 0, 2, 2, bytes(6), part(b"iCCP", b"a\0\0" + ZEROS)), ""),
}


@pytest.mark.parametrize("content, words", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_before_it_is_decoded(content, words):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PictureError) as caught:
        read(io.BytesIO(content), 3, 8)
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_a_file_of_too_many_bytes_is_not_read(tmp_path):
    with open(tmp_path / "large.webp", "wb") as file:
        file.truncate(2**28 + 1)
    too_large = pytest.raises(PictureError, match="holds 268,435,457 bytes; allowed: up to")
    with open(tmp_path / "large.webp", "rb") as file, too_large:
        read(file, 3)


def test_all_threads_together_decode_a_bounded_number_of_pixels(monkeypatch):
    """And a large image is decoded even where others keep coming."""
    now, most, lock = 0, 0, threading.Lock()

    def counted(image, *words):
        nonlocal now, most
        with lock:
            now += image.width * image.height
            most = max(most, now)
        time.sleep(0.005)
        with lock:
            now -= image.width * image.height

    monkeypatch.setattr(decode, "ROOM", decode.Room(500))
    monkeypatch.setattr(decode, "pixels_of", counted)
    files = [stored(Image.new("L", (side, 10))) for side in (10, 20, 50) * 8]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda file: read(file, 1), files))
    assert 300 < most <= 500 and decode.ROOM.free == 500


def failing(error):
    class File(io.BytesIO):
        def read(self, *words):
            raise error

    return File(bytes(100))


MACHINE = [
    MemoryError(),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.ETIMEDOUT, "Connection timed out"),
    PermissionError(errno.EACCES, "Permission denied"),
    OSError("decoder jpeg not available"),
    OSError("out of memory error when reading image file"),
    RuntimeError("Failed to decode image: Out of memory"),
    zlib.error("Error -4 while decompressing data: insufficient memory"),
]
DAMAGE = [
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    OSError(errno.ELOOP, "Too many levels of symbolic links"),
    OSError(errno.EINVAL, "Invalid argument"),
    OSError("image file is truncated (3 bytes not processed)"),
    SyntaxError("broken PNG file"),
    zlib.error("Error -3 while decompressing data: invalid block type"),
    zipfile.BadZipFile("Bad CRC-32 for file 'a.png'"),
    RuntimeError("File 'a.png' is encrypted, password required for extraction"),
    NotImplementedError("That compression method is not supported"),
    RecursionError("maximum recursion depth exceeded"),
]


@pytest.mark.parametrize("error", MACHINE, ids=repr)
def test_what_the_machine_cannot_do_is_no_fault_of_an_image(error):
    with pytest.raises(MachineError) as caught:
        read(failing(error), 3)
    assert (str(error) or "MemoryError") in str(caught.value)


@pytest.mark.parametrize("error", DAMAGE, ids=repr)
def test_what_is_damaged_is_a_fault_of_the_file(error):
    with pytest.raises(PictureError) as caught:
        read(failing(error), 3)
    assert str(error) in str(caught.value)


def test_a_reason_is_one_line_without_codes_of_a_terminal():
    with pytest.raises(PictureError) as caught:
        read(failing(ValueError("a\x1b[2J\nb" + "x" * 999)), 3)
    assert str(caught.value).startswith("a\\x1b[2J b") and len(str(caught.value)) == 200
